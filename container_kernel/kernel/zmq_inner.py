"""An inner kernel that speaks Jupyter's protocol itself: the image's own, unmodified.

The relay: a message is verified with one side's key, signed with the other's, and otherwise passed
on byte for byte. Two things change on the way out. The kernel's session id becomes ours, since
front ends drop outputs when two sessions take turns; and the reply goes back to whoever asked,
which is remembered by msg_id, since all front ends share one connection to the inner kernel (its
shell and stdin sockets have one identity, so that ``input()`` finds its way).

Inside is untrusted: nothing is passed on that was not asked for.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import zmq

from ..errors import CellError
from ..record import record
from .frames import Channel
from .front import Request
from .inner import Inner, Surroundings, Task, number
from .loop import report
from .publisher import describe
from .wire import MalformedMessage, Message, Session, Signer, dump

if TYPE_CHECKING:
    from .launch import Launched

_CHANNELS = {
    "shell": zmq.DEALER,
    "control": zmq.DEALER,
    "stdin": zmq.DEALER,
    "iopub": zmq.SUB,
}
_SOCKET_NAMES = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
_LOOK_AGAIN_S = 0.004
_NUDGE_S = 0.5
_REPLY_PATIENCE_S = 1.0
"""So much later than its idle may a cell's reply come. An interrupt at the wrong moment, or a
request that makes a kernel stumble, and none comes: the cells behind must not wait for it."""
_INPUT_PATIENCE_S = 0.1
_COMPILE_S = 0.005
"""An interrupt waits so long for the cell's ``execute_input``, and from there for its code to run:
before, ipykernel ignores a signal, forgets to answer the cell because of it, or dies of it."""
_BATCH = 200
_REMEMBERED = 10_000
_SANE_SESSION = re.compile(r"[\w-]{8,128}")


@record(frozen=False)
class _Progress:
    """What has come back for the cell that runs."""

    reply: dict[str, object] | None = None
    has_begun: bool = False
    input_at: float | None = None
    """When its ``execute_input`` came, by the monotonic clock."""
    is_idle: bool = False
    was_interrupted: bool = False
    was_signalled: bool = False
    question: str = ""
    """What was asked behind it: an answer to that, and not a word of the cell, and it is lost."""


class ZmqInner(Inner):
    """Relays between the front ends and a kernel with sockets of its own."""

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        assert launched.connection is not None
        assert launched.spec is not None
        self._spec = launched.spec
        self._signer = Signer(launched.connection.key)
        self._own = Session(self._signer, "container_kernel")
        self._hidden = f"hidden-{self._own.id}-"
        self._hidden_count = 0
        self._identity = self._own.id.encode()
        self._channels: dict[str, Channel] = {}
        self._paths: list[int] = []
        self._routes: dict[str, Request] = {}
        self._asked: dict[str, None] = {}
        self._session = ""
        self._ours = around.front.session.id.encode()
        self._heard_iopub = False
        self._next_count = 1
        self._progress = _Progress()
        super().__init__(launched, around)
        self._connect()

    # Connecting

    def _connect(self) -> None:
        if self.is_closed:
            return
        try:
            for channel in _CHANNELS:
                if channel not in self._channels:
                    self._connect_channel(channel)
        except OSError as error:
            report(f"inner kernel: {error}")
            self.container.kill()
            return
        if len(self._channels) < len(_CHANNELS):
            self.loop.call_later(_LOOK_AGAIN_S, self._connect)
        else:
            self._probe()

    def _connect_channel(self, channel: str) -> None:
        path = self.mailbox.socket(f"kernel-{_SOCKET_NAMES[channel]}")
        if path is None:
            return
        self._paths.append(path)
        socket: zmq.Socket[bytes] = self.front.context.socket(_CHANNELS[channel])
        socket.set_hwm(0)
        socket.linger = 0
        # The file appears a moment before its owner listens.
        socket.reconnect_ivl = 5
        socket.reconnect_ivl_max = 100
        if channel in ("shell", "stdin"):
            socket.identity = self._identity
        if channel == "iopub":
            socket.subscribe(b"")
        socket.connect(f"ipc:///proc/self/fd/{path}")
        made = self._channels[channel] = Channel(socket)
        self.loop.add_channel(made, partial(self._read, channel))

    def _probe(self) -> None:
        if not self.is_ready and not self.is_closed:
            self._send_hidden("shell", "kernel_info_request", {})
            self.loop.call_later(_NUDGE_S, self._probe)

    # Towards the inner kernel

    def execute(self, task: Task) -> None:
        """Pass a cell on, with the number it shall have."""
        self.task, self._progress = task, _Progress()
        if self.is_ipython and task.counts and self._next_count != task.count:
            code = f"get_ipython().execution_count = {task.count}"
            content = {"code": code, "silent": True, "store_history": False, "allow_stdin": False}
            self._send_hidden("shell", "execute_request", content)
            self._next_count = task.count
        self._pass_on("shell", task.request)

    def forward(self, request: Request) -> bool:
        """Pass on anything."""
        self._pass_on(request.channel, request)
        return True

    @property
    def _owes_answers(self) -> bool:
        return bool(self._asked)

    def _pass_on(self, channel: str, request: Request) -> None:
        message = request.message
        self._send(channel, message.dicts, message.buffers)
        if channel == "stdin":
            return
        self._asked[request.msg_id] = None
        if len(self._asked) > _REMEMBERED:
            oldest = next(iter(self._asked))
            del self._asked[oldest]
            if self.task is None or oldest != self.task.request.msg_id:
                self._routes.pop(oldest, None)
        if request.msg_type.endswith("_request"):
            self._routes[request.msg_id] = request

    def _send(self, channel: str, dicts: Sequence[bytes], buffers: Sequence[bytes] = ()) -> None:
        signature = self._signer.sign(dicts)
        frames = [b"<IDS|MSG>", signature, *dicts, *buffers]
        self._channels[channel].send(frames)

    def _send_hidden(self, channel: str, msg_type: str, content: object) -> str:
        self._hidden_count += 1
        msg_id = f"{self._hidden}{self._hidden_count}"
        if channel in self._channels:
            frames = self._own.frames(msg_type, content, msg_id=msg_id)
            self._channels[channel].send(frames)
        return msg_id

    def interrupt(self) -> None:
        """As its kernelspec wants it, as soon as the cell's own code runs."""
        task, progress = self.task, self._progress
        progress.was_interrupted = True
        if task is None or progress.was_signalled:
            self._signal()
        elif progress.input_at is None:
            self.loop.call_later(_INPUT_PATIENCE_S, partial(self._signal_first, task))
        elif (wait_s := progress.input_at + _COMPILE_S - time.monotonic()) > 0:
            self.loop.call_later(wait_s, partial(self._signal_first, task))
        else:
            self._signal_first(task)

    def _signal_first(self, task: Task) -> None:
        progress = self._progress
        if self.task is not task or progress.was_signalled or self.is_closed:
            return
        progress.was_signalled = True
        self._signal()
        if not progress.has_begun:
            self._ask_behind(task)

    def _signal(self) -> None:
        if self._spec.interrupt_mode == "message":
            self._send_hidden("control", "interrupt_request", {})
        else:
            self.container.interrupt()

    def _ask_behind(self, task: Task, unanswered: str = "") -> None:
        """Until there is an answer: an interrupt may hit the question, too."""
        progress = self._progress
        if self.task is not task or progress.question != unanswered or self.is_closed:
            return
        progress.question = self._send_hidden("shell", "kernel_info_request", {})
        again = partial(self._ask_behind, task, progress.question)
        self.loop.call_later(_REPLY_PATIENCE_S, again)

    def ask_to_end(self) -> None:
        """Ask for an orderly end, so that its exit handlers run."""
        self._send_hidden("control", "shutdown_request", {"restart": False})

    # From the inner kernel

    def drain(self) -> None:
        """Read every socket until it is empty; outputs before replies."""
        for channel in ("iopub", "stdin", "control", "shell"):
            while channel in self._channels and self._read(channel):
                continue

    def _read(self, channel: str) -> bool:
        source = self._channels[channel]
        for _ in range(_BATCH):
            frames = source.receive()
            if frames is None:
                return False
            try:
                message = Message.parse(frames, self._signer)
            except MalformedMessage as error:
                report(f"inner {channel}: message dropped: {error}")
                continue
            self._take(channel, message)
            if self.is_closed or not source.waits():
                return False
        return True

    def _take(self, channel: str, message: Message) -> None:
        if channel == "iopub":
            self._on_iopub(message)
        elif message.parent_id.startswith(self._hidden):
            self._on_hidden_reply(message)
        elif channel == "stdin":
            self._on_input_request(message)
        else:
            self._on_reply(channel, message)

    def _on_hidden_reply(self, message: Message) -> None:
        if message.msg_type == "kernel_info_reply" and not self.is_ready:
            if self._heard_iopub:
                self._became_ready(message.content)
            else:
                self._send_hidden("shell", "kernel_info_request", {})
        elif message.parent_id == self._progress.question and self.task is not None:
            self._progress.question = ""
            if self._progress.is_idle:
                self._miss_reply(self.task)
            else:
                self.loop.call_later(_REPLY_PATIENCE_S, partial(self._lose, self.task))

    def _lose(self, task: Task) -> None:
        if not self._progress.has_begun:
            self._miss_reply(task)

    def _on_input_request(self, message: Message) -> None:
        route = self._routes.get(message.parent_id)
        if route is not None and message.msg_type == "input_request":
            self._relay("stdin", message, route.message.identities)

    def _on_reply(self, channel: str, message: Message) -> None:
        route = self._routes.get(message.parent_id)
        expected = route.msg_type.removesuffix("_request") + "_reply" if route else ""
        if route is None or route.channel != channel or message.msg_type != expected:
            report(f"inner {channel}: {message.msg_type} dropped: nobody asked")
            return
        del self._routes[message.parent_id]
        task = self.task if self.task and self.task.request.msg_id == route.msg_id else None
        if task is not None and message.content.get("status") == "error":
            self.listener.on_failed(self, task)
        if task is not None and (mark := self.front.mark(route)):
            message = message.with_metadata(mark)
        self._relay(channel, message, route.message.identities)
        if task is not None:
            self._progress.reply = message.content
            self._note_count(task, message.content.get("execution_count"))
            self._finish_if_done()

    def _note_count(self, task: Task, value: object) -> None:
        count = number(value)
        if count is not None and task.counts:
            self._next_count = count + 1

    def _on_iopub(self, message: Message) -> None:
        self._heard_iopub = True
        kind, parent = message.msg_type, message.parent_id
        if parent.startswith(self._hidden) or kind == "iopub_welcome":
            return
        if kind.endswith(("_request", "_reply")):
            report(f"inner iopub: {kind} dropped: it does not belong there")
            return
        is_status = kind == "status"
        is_current = self.task is not None and parent == self.task.request.msg_id
        if is_current and self.task is not None:
            self._note_progress(self.task, kind)
        if is_status and not is_current and parent not in self._asked:
            return
        if not (is_current and self._was_announced(message)):
            self._relay("iopub", message, message.identities)
            if is_current and self.task is not None and kind == "execute_input":
                self.task.is_shown = True
            if is_current and self.task is not None and kind == "error":
                self.listener.on_error(self, self.task, message.content)
        if is_status and message.content.get("execution_state") == "idle":
            self._asked.pop(parent, None)
            if is_current:
                task = self.task
                self._progress.is_idle = True
                self._finish_if_done()
                if task is not None and self.task is task:  # else the next cell runs by now
                    self._await_reply(task)

    def _note_progress(self, task: Task, kind: str) -> None:
        progress = self._progress
        progress.has_begun = True
        if kind == "execute_input":
            progress.input_at = time.monotonic()
            if progress.was_interrupted:
                self.loop.call_later(_COMPILE_S, partial(self._signal_first, task))

    def _await_reply(self, task: Task) -> None:
        if self._progress.was_signalled:
            self._ask_behind(task)
        else:
            self.loop.call_later(_REPLY_PATIENCE_S, partial(self._miss_reply, task))

    def _miss_reply(self, task: Task) -> None:
        if self.task is not task or self._progress.reply is not None or self.is_closed:
            return
        self._routes.pop(task.request.msg_id, None)
        self.listener.on_failed(self, task)
        error: BaseException = CellError("the kernel in the container did not answer this request")
        if self._progress.was_interrupted:  # ipykernel, before the cell's own code began to run
            error = KeyboardInterrupt()
        reply = {"status": "error", **describe(error), "execution_count": task.count}
        self.front.reply(task.request, "execute_reply", reply, {"status": "error"})
        self._finished(task, reply)

    def _was_announced(self, message: Message) -> bool:
        if self.task is None or not self.task.announced:
            return False
        busy = message.msg_type == "status" and message.content.get("execution_state") == "busy"
        return busy or message.msg_type == "execute_input"

    def _finish_if_done(self) -> None:
        task, progress = self.task, self._progress
        if task is not None and progress.reply is not None and progress.is_idle:
            self._finished(task, progress.reply)

    def _relay(self, channel: str, message: Message, identities: Sequence[bytes]) -> None:
        header, *others = message.dicts
        frames = self.front.sign_again([self._as_ours(message, header), *others], message.buffers)
        if channel == "iopub" and self._session:
            theirs = self._session.encode()
            identities = [frame.replace(theirs, self._ours) for frame in identities]
        self.front.send(channel, identities, frames)

    def _as_ours(self, message: Message, header: bytes) -> bytes:
        """The header with our session id; only there, so nothing else is touched."""
        session = message.header.get("session")
        if not self._session and isinstance(session, str) and _SANE_SESSION.fullmatch(session):
            self._session = session
        if self._session and session == self._session:
            return header.replace(self._session.encode(), self._ours)
        return dump({**message.header, "session": self.front.session.id})

    # The rest

    def _on_output(self, name: str, data: bytes) -> None:
        """Such a kernel captures its own output; what still comes is kept as its last words."""

    def _disconnect(self) -> None:
        for channel in self._channels.values():
            self.loop.remove_channel(channel)
            # What was sent a moment ago (a shutdown_request) may still leave.
            channel.close(linger_ms=500)
        for path in self._paths:
            os.close(path)
        self._channels.clear()
