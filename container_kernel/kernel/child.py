"""Child: our own kernel in a process of its own, driven cell by cell.

Whoever has threads cannot enter namespaces (an ordinary ipykernel has), and whoever speaks to a
kernel need not: the notebook extension, the Python interface and ``container-kernel install`` all
start one and send it cells. Blocking, for one thread at a time; ends with the process that made it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zmq

from ..display.log import plain
from ..errors import CellFailed, HostError
from ..folders import remove_tree
from ..runtime import run_dir
from .wire import ConnectionInfo, Dict, MalformedMessage, Message, Session, Signer

_PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 6.0
_LOOK_AGAIN_MS = 100

OnMessage = Callable[[str, Dict], object]
"""Takes the type and the content of a message that a cell published."""
OnInput = Callable[[str, bool], str]
"""Takes a prompt, and whether it is for a password; the line that was typed."""


class Child:
    """A running kernel; ``close`` ends it."""

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        folder: Path | None = None,
        is_notebook: bool = False,
    ) -> None:
        """Start it in ``folder``; ``arguments`` are those of ``python -m container_kernel.kernel``.

        With ``is_notebook`` it works on the notebook that this process is a kernel of, if it is.

        Raises:
            HostError: it did not start.
        """
        self._owner = os.getpid()
        # A run folder, since this process may be killed together with the kernel.
        self._place, self._lock = run_dir.make(os.environ)
        key = os.urandom(32).hex().encode()
        self._info = ConnectionInfo(
            transport="ipc", ip=str(self._place / "kernel"), ports=_PORTS, key=key
        )
        self._session = Session(Signer(key), "container_kernel")
        self._context = zmq.Context()
        self._busy = threading.Lock()
        self._count = 0
        self._process = self._start(arguments, folder, is_notebook=is_notebook)
        self._sockets = {
            name: self._connect(name, kind)
            for name, kind in (
                ("iopub", zmq.SUB),
                ("stdin", zmq.DEALER),
                ("control", zmq.DEALER),
                ("shell", zmq.DEALER),
            )
        }
        self._poller = zmq.Poller()
        for socket in self._sockets.values():
            self._poller.register(socket, zmq.POLLIN)
        atexit.register(self.close)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def _start(
        self, arguments: Sequence[str], folder: Path | None, *, is_notebook: bool
    ) -> subprocess.Popen[bytes]:
        file = self._place / "connection.json"
        file.write_text(self._info.to_json())
        environ = {**os.environ, "JPY_PARENT_PID": str(os.getpid())}  # it ends when we end
        if not is_notebook:
            environ.pop("JPY_SESSION_NAME", None)
        with open(self._place / "log", "wb") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "container_kernel.kernel",
                    "-f",
                    str(file),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environ,
                start_new_session=True,  # Ctrl-C is ours to pass on
            )

    def _connect(self, name: str, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set_hwm(0)
        socket.linger = 0
        socket.reconnect_ivl = 5
        if kind == zmq.SUB:
            socket.subscribe(b"")
        else:
            # Shell and stdin must have the same, so that questions find their way.
            socket.identity = self._session.id.encode()
        socket.connect(self._info.address(name))
        return socket

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        msg_id = self._send("shell", "kernel_info_request", {})
        waits_for = {"iopub", "shell"}
        while waits_for:
            if time.monotonic() > deadline:
                raise HostError(f"the kernel did not answer within {_START_TIMEOUT_S:.0f} s")
            for channel, message in self._receive():
                if channel == "iopub" or message.parent_id == msg_id:
                    waits_for.discard(channel)

    # Asking

    @property
    def is_running(self) -> bool:
        """Whether it can be asked anything."""
        return self._process.poll() is None and not self._context.closed

    def info(self) -> Dict:
        """What it says of itself: a kernel_info_reply."""
        with self._alone():
            msg_id = self._send("control", "kernel_info_request", {})
            while True:
                for channel, message in self._receive():
                    if channel == "control" and message.parent_id == msg_id:
                        return message.content

    def run(
        self,
        code: str,
        on_message: OnMessage = lambda kind, content: None,
        *,
        on_input: OnInput | None = None,
        metadata: Dict | None = None,
        silent: bool = False,
    ) -> Dict:
        """Run a cell, pass on what it publishes, return its reply.

        Ctrl-C stops the cell, as in a notebook; its reply says so.

        Raises:
            HostError: the kernel has ended.
        """
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": on_input is not None,
            "stop_on_error": False,  # nobody waits behind it
        }
        with self._alone():
            msg_id = self._send("shell", "execute_request", content, metadata)
            run = _Run(msg_id, on_message, on_input)
            while not run.is_done:
                try:
                    for channel, message in self._receive():
                        answer = run.take(channel, message)
                        if answer is not None:
                            self._send("stdin", "input_reply", {"value": answer})
                except KeyboardInterrupt:
                    self.interrupt()
        assert run.reply is not None
        return run.reply

    def interrupt(self) -> None:
        """Stop the cell that runs."""
        self._send("control", "interrupt_request", {})

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise HostError("the kernel runs another cell", hint="wait until that has ended")
        try:
            yield
        finally:
            self._busy.release()

    def _send(
        self, channel: str, msg_type: str, content: Dict, metadata: Dict | None = None
    ) -> str:
        self._count += 1
        msg_id = f"{self._session.id}_{self._count}"
        frames = self._session.frames(msg_type, content, metadata=metadata, msg_id=msg_id)
        self._sockets[channel].send_multipart(frames)
        return msg_id

    def _receive(self) -> Iterator[tuple[str, Message]]:
        """What has come, outputs first; waits a moment for it.

        Raises:
            HostError: the kernel has ended, and all it said was received.
        """
        has_ended = self._process.poll() is not None
        is_idle = not self._poller.poll(0 if has_ended else _LOOK_AGAIN_MS)
        if is_idle and has_ended:
            raise HostError(self._obituary())
        for channel, socket in self._sockets.items():
            while True:
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                with contextlib.suppress(MalformedMessage):
                    yield channel, Message.parse(frames, self._session.signer)

    def _obituary(self) -> str:
        said = (self._place / "log").read_text(errors="replace").splitlines()[-10:]
        return "\n".join(["the container's kernel has ended", *(f"  {line}" for line in said)])

    # The end

    def close(self) -> None:
        """End it, with its containers; harmless when it has ended."""
        if os.getpid() != self._owner or self._context.closed:
            return
        atexit.unregister(self.close)
        if self._process.poll() is None:
            with contextlib.suppress(zmq.ZMQError, AttributeError, KeyError):
                self._send("control", "shutdown_request", {"restart": False})
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_TIMEOUT_S)
                break
        for socket in self._sockets.values():
            socket.close()
        self._context.term()
        remove_tree(self._place)
        os.close(self._lock)


class _Run:
    """What has come back for one cell."""

    def __init__(self, msg_id: str, on_message: OnMessage, on_input: OnInput | None) -> None:
        self._msg_id = msg_id
        self._on_message = on_message
        self._on_input = on_input
        self._is_idle = False
        self.reply: Dict | None = None

    @property
    def is_done(self) -> bool:
        """Whether its reply and all its outputs are there."""
        return self.reply is not None and self._is_idle

    def take(self, channel: str, message: Message) -> str | None:
        """Act on a message; a line of input if that is what it asked for."""
        if message.parent_id != self._msg_id:
            return None
        kind, content = message.msg_type, message.content
        if channel == "shell":
            self.reply = content
        elif channel == "stdin" and self._on_input is not None:
            return self._on_input(str(content.get("prompt", "")), bool(content.get("password")))
        elif kind == "status":
            self._is_idle = content.get("execution_state") == "idle"
        elif channel == "iopub":
            self._on_message(kind, content)
        return None


def check(reply: Dict) -> Dict:
    """The reply of a cell that went well.

    Raises:
        CellFailed: it did not; the class is called as the error was in the kernel.
    """
    if reply.get("status") == "ok":
        return reply
    lines = [str(line) for line in reply.get("traceback") or ()]
    hints = [line for line in map(plain, lines) if line.startswith("hint: ")]
    name = str(reply.get("ename", "Aborted"))
    kind = type(name, (CellFailed,), {})  # so that whoever shows it shows the name
    raise kind(
        name,
        str(reply.get("evalue", "the cell did not run")),
        lines,
        hint=hints[-1].removeprefix("hint: ") if hints else None,
    )
