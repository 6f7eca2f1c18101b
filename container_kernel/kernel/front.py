"""The outer kernel's five sockets, as the front end sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import zmq

from ..record import record
from .frames import Channel
from .loop import Loop, report
from .outputs import Outputs
from .wire import (
    DELIMITER,
    ConnectionInfo,
    Dict,
    History,
    MalformedMessage,
    Message,
    Session,
    Signer,
)

_BATCH = 200
_AGAIN_S, _TRIES = 0.02, 100


@record
class Request:
    """A message from a front end, and the channel its reply goes back on."""

    channel: str
    message: Message

    @property
    def msg_id(self) -> str:
        """The id its reply and outputs name as their parent's."""
        return self.message.msg_id

    @property
    def msg_type(self) -> str:
        """What is asked."""
        return self.message.msg_type

    @property
    def content(self) -> Dict:
        """The arguments."""
        return self.message.content

    @property
    def is_execute(self) -> bool:
        """Whether it runs a cell."""
        return self.msg_type == "execute_request"

    @property
    def stops_on_error(self) -> bool:
        """Whether its failure aborts the cells that wait behind it."""
        is_silent = bool(self.content.get("silent"))  # what nobody sees fail stops nobody
        return not is_silent and bool(self.content.get("stop_on_error", True))


class Front:
    """Binds the sockets of a connection file and speaks as one kernel session."""

    def __init__(self, info: ConnectionInfo, loop: Loop) -> None:
        self._loop = loop
        self._signer = Signer(info.key, info.signature_scheme)
        self._history = History()
        self.session = Session(self._signer)
        self.outputs = Outputs()
        self.mark: Callable[[Request], Dict] = lambda _: {}
        """What the metadata of a cell's reply says of where it ran."""
        self.context = zmq.Context()
        self._channels = {
            "shell": self._bind(zmq.ROUTER, info.address("shell")),
            "control": self._bind(zmq.ROUTER, info.address("control")),
            "stdin": self._bind(zmq.ROUTER, info.address("stdin"), is_told=True),
            "iopub": self._bind(zmq.XPUB, info.address("iopub")),
        }
        self._start_heartbeat(info.address("hb"))
        loop.add_channel(self._channels["iopub"], self._on_subscription)

    def _bind(self, kind: int, address: str, *, is_told: bool = False) -> Channel:
        socket: zmq.Socket[bytes] = self.context.socket(kind)
        socket.linger = 1000
        # zmq drops silently at the high-water mark: outputs would be lost.
        socket.set_hwm(0)
        if kind == zmq.ROUTER:
            socket.router_handover = 1
            socket.router_mandatory = is_told  # that somebody is not there
        socket.bind(address)
        return Channel(socket)

    def _start_heartbeat(self, address: str) -> None:
        socket = self.context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.bind(address)
        threading.Thread(target=_echo, args=(socket,), name="heartbeat", daemon=True).start()

    def serve(self, channel: str, on_request: Callable[[Request], object]) -> None:
        """Hand every genuine message of ``channel`` to ``on_request``."""
        source = self._channels[channel]

        def read() -> None:
            for _ in range(_BATCH):
                if not self.read_one(channel, on_request) or not source.waits():
                    return

        self._loop.add_channel(source, read)

    def read_one(self, channel: str, on_request: Callable[[Request], object]) -> bool:
        """Take one message if one waits; False when none does."""
        frames = self._channels[channel].receive()
        if frames is None:
            return False
        try:
            message = Message.parse(frames, self._signer)
            message.check()
            if not self._history.add(message.signature):
                raise MalformedMessage("a replay")
        except MalformedMessage as error:
            report(f"{channel}: message dropped: {error}")
            return True
        on_request(Request(channel, message))
        return True

    def reply(
        self, request: Request, msg_type: str, content: object, metadata: Dict | None = None
    ) -> None:
        """Answer ``request``."""
        if msg_type == "execute_reply" and (mark := self.mark(request)):
            metadata = {**(metadata or {}), **mark}
        frames = self.session.frames(msg_type, content, request.message.dicts[0], metadata=metadata)
        self.send(request.channel, request.message.identities, frames)

    def publish(
        self, request: Request | None, msg_type: str, content: Dict, metadata: Dict | None = None
    ) -> None:
        """Publish on iopub as an output of ``request``."""
        parent = request.message.dicts[0] if request else b"{}"
        frames = self.session.frames(msg_type, content, parent, metadata=metadata)
        about = topic(self.session.id, msg_type)
        if msg_type == "stream":  # as ipykernel has it
            about = f"stream.{content['name']}".encode()
        self.send("iopub", [about], frames)

    def ask(self, request: Request, prompt: str, *, password: bool) -> None:
        """Ask the front end that sent ``request`` for a line of input."""
        content = {"prompt": prompt, "password": password}
        frames = self.session.frames("input_request", content, request.message.dicts[0])
        self.send("stdin", request.message.identities, frames)

    def status(self, request: Request | None, state: str) -> None:
        """Publish busy or idle."""
        self.publish(request, "status", {"execution_state": state})

    def send(self, channel: str, identities: Sequence[bytes], frames: Sequence[bytes]) -> None:
        """Send frames that are signed already; a front end that has left is no error."""
        if channel == "iopub":
            self.outputs.note(frames)
        self._try_to_send(channel, [*identities, *frames])

    def _try_to_send(self, channel: str, frames: Sequence[bytes], tries: int = 1) -> None:
        """A front end that has sent a cell may be a moment late to where questions are asked."""
        try:
            self._channels[channel].send(frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH or tries == _TRIES:
                report(f"{channel}: not sent: {error}")
            else:
                again = partial(self._try_to_send, channel, frames, tries + 1)
                self._loop.call_later(_AGAIN_S, again)

    def sign_again(self, dicts: Sequence[bytes], buffers: Sequence[bytes]) -> list[bytes]:
        """The frames of a message whose dicts came from elsewhere, signed with our key."""
        return [DELIMITER, self._signer.sign(dicts), *dicts, *buffers]

    def _on_subscription(self) -> None:
        while frames := self._channels["iopub"].receive():
            event = frames[0]
            if event[:1] == b"\1":
                text = event[1:].decode("utf-8", "replace")
                welcome = self.session.frames("iopub_welcome", {"subscription": text})
                self.send("iopub", [event[1:]] if text else [], welcome)

    def close(self) -> None:
        """Close all; what was sent has a second to leave."""
        for channel in self._channels.values():
            self._loop.remove_channel(channel)
            channel.close()


def topic(session_id: str, msg_type: str) -> bytes:
    """The frame in front of an iopub message, as ipykernel names it."""
    return f"kernel.{session_id}.{msg_type}".encode()


def _echo(socket: zmq.Socket[bytes]) -> None:
    try:
        zmq.proxy(socket, socket)
    except zmq.ZMQError:
        socket.close()
