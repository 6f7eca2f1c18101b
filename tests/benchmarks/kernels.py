"""A kernel as a front end sees it, with as little client as possible in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq
from jupyter_client.connect import write_connection_file
from jupyter_client.session import Session

from container_kernel.kernel.spare import Spare

TIMEOUT_S = 120
IPYKERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
OURS = (sys.executable, "-P", "-m", "container_kernel.kernel", "-f", "{connection_file}")
_LOADED_AFTER_S = 0.6


class Kernel:
    """A started kernel. ``execute`` returns when the reply and the idle status are both here.

    ``spare`` is the process that waits for it in a server, see `waiting`.
    """

    def __init__(
        self, *argv: str, cwd: Path | None = None, spare: Spare | None = None, **environ: str
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-kernel-")
        self.folder = Path(self._folder.name)
        file = str(self.folder / "connection.json")
        _, info = write_connection_file(file)
        self.session = Session(key=info["key"].encode(), signature_scheme="hmac-sha256")
        self._log = (Path(self._folder.name) / "log").open("w+b")
        self.process = self._start(
            [word.replace("{connection_file}", file) for word in argv],
            os.environ | {"JPY_PARENT_PID": str(os.getpid())} | environ,
            str(cwd or self._folder.name),
            spare,
        )
        self._context = zmq.Context()
        self.shell = self._connect(zmq.DEALER, info, "shell_port")
        self.control = self._connect(zmq.DEALER, info, "control_port")
        self.iopub = self._connect(zmq.SUB, info, "iopub_port")
        self.iopub.subscribe(b"")

    def _start(
        self, argv: list[str], environ: dict[str, str], cwd: str, spare: Spare | None
    ) -> subprocess.Popen[bytes]:
        if spare is None:
            log, nothing = self._log, subprocess.DEVNULL
            return subprocess.Popen(
                argv, stdin=nothing, stdout=log, stderr=log, cwd=cwd, env=environ
            )
        process = spare.be(argv, environ, cwd)
        if process is None:
            raise RuntimeError("the process that waited is none for this kernel")
        return process

    def _connect(self, kind: int, info: dict[str, Any], port: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.set(zmq.RECONNECT_IVL, 2)  # the default of 100 ms would be all one measures
        socket.connect(f"tcp://{info['ip']}:{info[port]}")
        return socket

    def send(self, code: str, *, cell_id: str | None = None) -> str:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": True}
        metadata = {"cellId": cell_id} if cell_id else {}
        message = self.session.send(self.shell, "execute_request", content, metadata=metadata)
        return str(message["header"]["msg_id"])

    def reply(self, msg_id: str, status: str = "ok") -> dict[str, Any]:
        while True:
            message = self._receive(self.shell)
            if message["parent_header"].get("msg_id") == msg_id:
                if message["content"]["status"] != status:
                    raise RuntimeError(f"{message['content']}\n{self.said()}")
                return message

    def outputs(self, msg_id: str) -> Iterator[dict[str, Any]]:
        """What is published for a request, as it comes, up to its idle."""
        while True:
            message = self._receive(self.iopub)
            if message["parent_header"].get("msg_id") == msg_id:
                if message["content"].get("execution_state") == "idle":
                    return
                yield message

    def idle(self, msg_id: str) -> None:
        for _ in self.outputs(msg_id):
            continue

    def execute(self, code: str, **more: Any) -> float:
        start = time.perf_counter()
        msg_id = self.send(code, **more)
        self.reply(msg_id)
        self.idle(msg_id)
        return time.perf_counter() - start

    def interrupt(self, code: str) -> float:
        """Run ``code``, which never ends by itself; from the interrupt to the reply."""
        msg_id = self.send(f"print('on', flush=True)\n{code}")
        outputs = self.outputs(msg_id)
        while next(outputs)["msg_type"] != "stream":
            continue
        time.sleep(0.05)  # it has entered its loop
        start = time.perf_counter()
        self.session.send(self.control, "interrupt_request", {})
        reply = self.reply(msg_id, "error")
        took = time.perf_counter() - start
        if reply["content"]["ename"] != "KeyboardInterrupt":
            raise RuntimeError(f"{reply['content']}\n{self.said()}")
        for _ in outputs:
            continue
        return took

    def _receive(self, socket: zmq.Socket[bytes]) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while not socket.poll(1000):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the kernel does not answer:\n{self.said()}")
        return dict(self.session.recv(socket, mode=0)[1])

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.session.send(self.control, "shutdown_request", {"restart": False})
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._context.destroy(linger=0)
        self._log.close()
        self._folder.cleanup()


def waiting(*argv: str) -> Spare:
    """What a server keeps for the next kernel, some time after it was started."""
    spare = Spare(argv, os.environ)
    time.sleep(_LOADED_AFTER_S)
    return spare


def seconds_to_introduction(*argv: str) -> float:
    """From nothing to what the kernel says it is."""
    start = time.perf_counter()
    with Kernel(*argv) as kernel:
        message = kernel.session.send(kernel.shell, "kernel_info_request", {})
        kernel.reply(str(message["header"]["msg_id"]))
        return time.perf_counter() - start


def seconds_to_first_result(
    *argv: str, cells: Sequence[str] = (), in_server: bool = False, **more: Any
) -> float:
    """From nothing to the reply to ``1 + 1``; ``cells`` run before it, all asked for at once.

    With ``in_server`` a process waits for it, as in a Jupyter server.
    """
    spare = waiting(*argv) if in_server else None
    start = time.perf_counter()
    with Kernel(*argv, spare=spare, **more) as kernel:
        for msg_id in [kernel.send(cell) for cell in (*cells, "1 + 1")]:
            kernel.reply(msg_id)
        return time.perf_counter() - start
