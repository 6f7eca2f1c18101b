"""Inner kernels that are our agents: they run code, all Jupyter is spoken here.

An agent's output comes through the container's two pipes, so that its child processes' is in
order with its own; what is to be told beside it comes as lines through a FIFO. Either may hold
anything: the container is not trusted.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from .front import Request
from .inner import Inner, Surroundings, Task
from .loop import guarded, report
from .publisher import Publisher
from .stream import Stream
from .wire import Dict, dump, parse_object

if TYPE_CHECKING:
    from .launch import Launched

_LINE_LIMIT = 64 << 20
_RETRY_S = 0.002
_OUTPUTS = {"display_data", "update_display_data", "execute_result", "clear_output"}


class AgentInner(Inner):
    """What the two agents have in common: pipes, streams, and one cell at a time."""

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        assert launched.agent is not None
        self.agent = launched.agent
        self._unsent = b""
        self._last: Publisher | None = None
        self._streams = {
            name: Stream(around.loop, lambda text, name=name: self._publish_text(name, text))  # type: ignore[misc]
            for name in ("stdout", "stderr")
        }
        super().__init__(launched, around)

    def execute(self, task: Task) -> None:
        """Run a cell."""
        self.task = task
        self._last = Publisher(self.front, task.request)
        self._last.is_announced = task.announced
        self._last.announce(task.count)
        task.is_shown = True
        self._send_cell(task)

    @abstractmethod
    def _send_cell(self, task: Task) -> None: ...

    def interrupt(self) -> None:
        """As Ctrl-C in a terminal."""
        self.container.interrupt()

    def last_words(self) -> list[str]:
        """Its cell shows them, once it runs any."""
        return [] if self.is_ready else super().last_words()

    def _send(self, data: bytes) -> None:
        """Write to its commands; what does not fit follows when there is room."""
        was_empty = not self._unsent
        self._unsent += data
        if was_empty:
            self._write()

    def _write(self) -> None:
        if self.is_closed:
            return
        try:
            self._unsent = self._unsent[os.write(self.agent.commands, self._unsent) :]
        except BlockingIOError:
            pass
        if self._unsent:
            self.loop.call_later(_RETRY_S, self._write)

    def _on_output(self, name: str, data: bytes) -> None:
        self._streams[name].write(data)

    def _publish_text(self, name: str, text: str) -> None:
        if self._last is not None:
            self._last.stream(name, text)

    def _flush(self, *, final: bool = False) -> None:
        """Publish all that was printed before now."""
        self.process.drain_all()
        for stream in self._streams.values():
            stream.flush(final=final)

    def drain(self) -> None:
        """Publish what is left."""
        self._flush(final=True)

    def _end_cell(self, failure: Dict | None) -> None:
        task, publisher = self.task, self._last
        if task is None or publisher is None or self.is_closed:
            return
        if failure is not None and publisher.too_soon_s > 0:
            again = partial(self._end_cell, failure)
            self.loop.call_later(publisher.too_soon_s, again)
            return
        self._flush()
        if failure is None:
            publisher.ok()
        else:
            self.listener.on_failed(self, task)
            publisher.failure(failure)
        status = "ok" if failure is None else "error"
        self._finished(task, {"status": status, "execution_count": task.count})

    def _disconnect(self) -> None:
        for stream in self._streams.values():
            stream.flush()
        os.close(self.agent.commands)
        os.close(self.agent.events)


class PythonInner(AgentInner):
    """The agent in an image with ``python3``."""

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        self._lines = bytearray()
        self._searched = 0
        self._asked: dict[str, Request] = {}
        super().__init__(launched, around)
        self.loop.add_reader(self.agent.events, self._read)

    def _tell(self, op: str, **fields: object) -> None:
        self._send(dump({"op": op, **fields}) + b"\n")

    def _send_cell(self, task: Task) -> None:
        content = task.request.content
        self._tell(
            "execute",
            id=task.request.msg_id,
            code=content["code"],
            count=task.count,
            silent=task.silent,
            store_history=task.counts,
            user_expressions=content.get("user_expressions") or {},
            allow_stdin=bool(content.get("allow_stdin", False)),
        )

    def forward(self, request: Request) -> bool:
        """Look-ups, and the answer to ``input()``."""
        content = request.content
        if request.msg_type == "input_reply":
            self._tell("input_reply", value=str(content.get("value", "")))
            return True
        arguments = _arguments(request)
        if arguments is None:
            return False
        self._asked[request.msg_id] = request
        self.front.status(request, "busy")
        op = request.msg_type.removesuffix("_request")
        self._tell(op, id=request.msg_id, **arguments)
        return True

    def drain(self) -> None:
        """Take the events and the output that are left."""
        while self._read():
            continue
        super().drain()

    def _read(self) -> bool:
        if self.is_closed:
            return False
        try:
            data = os.read(self.agent.events, 1 << 18)
        except BlockingIOError:
            return False
        self._lines += data
        while (end := self._lines.find(b"\n", self._searched)) >= 0:
            line = bytes(self._lines[:end])
            del self._lines[: end + 1]
            self._searched = 0
            guarded(lambda line=line: self._take(parse_object(line)))  # type: ignore[misc]
        self._searched = len(self._lines)
        if len(self._lines) > _LINE_LIMIT:
            report("agent: a line of more than 64 MiB; its container is ended")
            self._lines.clear()
            self._searched = 0
            self.container.kill()
        return True

    def _take(self, event: Dict) -> None:
        op, content = event.get("op"), event.get("content")
        content = content if isinstance(content, dict) else {}
        if op == "ready" and not self.is_ready:
            info = event.get("info")
            self._became_ready(info if isinstance(info, dict) else {})
        elif op == "reply":
            self._on_reply(str(event.get("id")), content)
        elif op == "publish":
            self._on_publish(event.get("type"), content, is_sync=bool(event.get("sync")))
        elif op == "input_request" and self.task is not None:
            self._flush()
            prompt, password = str(event.get("prompt", "")), bool(event.get("password"))
            if self.task.request.content.get("allow_stdin"):
                self.front.ask(self.task.request, prompt, password=password)

    def _on_publish(self, kind: object, content: Dict, *, is_sync: bool) -> None:
        self._flush()
        if is_sync:
            self._tell("ack")
        if kind in _OUTPUTS and self._last is not None:
            self._last.output(str(kind), content)

    def _on_reply(self, msg_id: str, content: Dict) -> None:
        if self.task is not None and msg_id == self.task.request.msg_id:
            self._end_execute(content)
            return
        request = self._asked.pop(msg_id, None)
        if request is not None:
            reply = request.msg_type.removesuffix("_request") + "_reply"
            self.front.reply(request, reply, content)
            self.front.status(request, "idle")

    def _end_execute(self, content: Dict) -> None:
        if content.get("status") == "ok":
            found = content.get("user_expressions")
            if self._last is not None and isinstance(found, dict):
                self._last.user_expressions = found
            self._end_cell(None)
            return
        lines = content.get("traceback")
        lines = [str(line) for line in lines] if isinstance(lines, list) else []
        name, value = str(content.get("ename", "Error")), str(content.get("evalue", ""))
        self._end_cell({"ename": name, "evalue": value, "traceback": lines})

    def _disconnect(self) -> None:
        self.loop.remove_reader(self.agent.events)
        super()._disconnect()


class ShellInner(AgentInner):
    """The agent in an image that has only ``sh``.

    Its prompt says that a cell is over: a mark nobody can guess, the number of
    the cell, the exit status.
    """

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        self._mark = os.urandom(8).hex().encode()
        self._number = 0
        self._held = {"stdout": b"", "stderr": b""}
        super().__init__(launched, around)
        prompt = f"{self._mark.decode()}$__ck_id:$?:"
        self._send(f". '{self.agent.file}'; __ck_id=0; PS1='{prompt}'\n".encode())

    def _send_cell(self, task: Task) -> None:
        self._number += 1
        code = escaped(task.request.content["code"])
        self._send(b"__ck_id=%d; __ck_run '%s'\n" % (self._number, code))

    def forward(self, request: Request) -> bool:
        """It knows nothing but cells."""
        return False

    def _on_output(self, name: str, data: bytes) -> None:
        # Most shells prompt on standard error, busybox without a terminal on standard output.
        self._held[name] += data
        while self._take_prompt(name):
            continue
        held = self._held[name]
        # A mark may be cut in two; its first half waits for the second.
        start = held.find(self._mark)
        start = len(held) - _overlap(held, self._mark) if start < 0 else start
        self._held[name] = held[start:]
        self._on_text(name, held[:start])

    def _take_prompt(self, name: str) -> bool:
        """Act on the first whole prompt; False if there is none."""
        before, mark, after = self._held[name].partition(self._mark)
        parts = after.split(b":", 2)
        if not mark or len(parts) < 3:
            return False
        self._held[name] = parts[2]
        self._on_text(name, before)
        self._on_prompt(parts[0], parts[1])
        return True

    def _on_text(self, name: str, text: bytes) -> None:
        if text and self.is_ready:
            super()._on_output(name, text)

    def _on_prompt(self, number: bytes, status: bytes) -> None:
        if not self.is_ready:
            self.process.drain("stderr")  # what an interactive shell says of having no terminal
            self._held["stderr"] = b""
            self._became_ready(_SHELL_INFO)
        elif number == b"%d" % self._number and self.task is not None:
            self._end_cell(None if status == b"0" else _failure(status.decode("ascii", "replace")))


def _failure(status: str) -> Dict:
    if status == "130":
        return {
            "ename": "KeyboardInterrupt",
            "evalue": "",
            "traceback": ["\x1b[31mKeyboardInterrupt\x1b[0m"],
        }
    message = f"the cell ended with exit status {status}"
    shown = f"\x1b[31mExitStatus\x1b[0m: {message}"
    return {"ename": "ExitStatus", "evalue": message, "traceback": [shown]}


def escaped(text: str) -> bytes:
    """Text as an argument of ``printf %b`` between single quotes."""
    safe = b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./=:,+$"(){}[];|&<>'
    data = text.replace("\0", "").encode("utf-8", "replace")
    return b"".join(b"%c" % byte if byte in safe else b"\\0%03o" % byte for byte in data)


def _overlap(data: bytes, mark: bytes) -> int:
    """How many bytes at the end of ``data`` may begin ``mark``."""
    sizes = range(min(len(data), len(mark) - 1), 0, -1)
    return next((size for size in sizes if mark.startswith(data[-size:])), 0)


def _arguments(request: Request) -> Dict | None:
    """What a look-up asks, checked; None if it is none."""
    content = request.content
    kind = request.msg_type
    if kind == "history_request":
        return {key: content[key] for key in _HISTORY if key in content}
    if kind not in ("complete_request", "inspect_request", "is_complete_request"):
        return None
    code = content.get("code")
    code = code if isinstance(code, str) else ""
    cursor = content.get("cursor_pos")
    cursor = cursor if isinstance(cursor, int) and 0 <= cursor <= len(code) else len(code)
    return {"code": code, "cursor_pos": cursor, "detail_level": content.get("detail_level", 0)}


_HISTORY = ("hist_access_type", "output", "raw", "start", "stop", "n", "pattern", "unique")
_SHELL_INFO: Dict = {
    "implementation": "container_kernel.agent",
    "banner": "sh",
    "language_info": {
        "name": "bash",
        "version": "",
        "mimetype": "text/x-sh",
        "codemirror_mode": "shell",
        "pygments_lexer": "bash",
        "nbconvert_exporter": "script",
        "file_extension": ".sh",
    },
}
