"""The inner kernel of an image with ``python3``: see ``agent/python.py`` for its side."""

from __future__ import annotations

import binascii
import os
from functools import partial
from typing import TYPE_CHECKING

from . import foreign
from .agent_inner import AgentInner
from .front import Request, topic
from .inner import Surroundings, Task
from .loop import guarded, report
from .publisher import Publisher
from .stream import Stream
from .wire import Dict, dump, parse_object

if TYPE_CHECKING:
    from .launch import Launched

_LINE_LIMIT = 64 << 20
_OUTPUTS = {"display_data", "update_display_data", "execute_result", "clear_output"}
_COMMS = {"comm_open", "comm_msg", "comm_close"}
_AGAIN_S = 0.01
_REMEMBERED = 200
"""So many cells' threads may still have their output shown where the cell is."""


class PythonInner(AgentInner):
    """The agent in an image with ``python3``: lines of JSON either way."""

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        self._lines = bytearray()
        self._searched = 0
        self._asked: dict[str, Request] = {}
        self._cells: dict[str, Publisher] = {}
        self._beside: dict[tuple[str, str], Stream] = {}
        self._cell: Publisher | None = None
        self._interrupted: Task | None = None
        super().__init__(launched, around)
        self.loop.add_reader(self.agent.events, self._read)

    @property
    def magics(self) -> frozenset[str]:
        """The everyday ones; it says of others what they need."""
        return foreign.AGENT

    @property
    def _owes_answers(self) -> bool:
        return bool(self._asked)

    def _tell(self, op: str, **fields: object) -> None:
        self._send(dump({"op": op, **fields}) + b"\n")

    def _send_cell(self, task: Task) -> None:
        content = task.request.content
        assert self._last is not None
        self._cell = self._cells[task.request.msg_id] = self._last
        if len(self._cells) > _REMEMBERED:
            del self._cells[next(iter(self._cells))]
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
        """Look-ups, comms, and the answer to ``input()``."""
        if request.msg_type == "input_reply":
            self._tell("input_reply", value=str(request.content.get("value", "")))
            return True
        arguments = _arguments(request)
        if arguments is None:
            return super().forward(request)
        self._asked[request.msg_id] = request
        self.front.status(request, "busy")
        op = "comm" if request.msg_type in _COMMS else request.msg_type.removesuffix("_request")
        self._tell(op, id=request.msg_id, **arguments)
        return True

    def drain(self) -> None:
        """Take the events and the output that are left."""
        while self._read():
            continue
        super().drain()

    def _flush(self, *, final: bool = False) -> None:
        super()._flush(final=final)
        for stream in self._beside.values():
            stream.flush(final=final)

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
            self._on_publish(event, content)
        elif op == "stream":
            self._on_stream(event)
        elif op == "missed":
            self._on_missed(str(event.get("over")))
        elif op == "begin":
            self._on_begin(str(event.get("id")))
        elif op == "input_request" and self.task is not None:
            self._flush()
            prompt, password = str(event.get("prompt", "")), bool(event.get("password"))
            if self.task.request.content.get("allow_stdin"):
                self.front.ask(self.task.request, prompt, password=password)

    def _on_publish(self, event: Dict, content: Dict) -> None:
        self._flush()
        if event.get("sync"):
            self._tell("ack")
        kind = event.get("type")
        publisher = self._publisher_of(event)
        if kind == "execute_result" and self.task is not None and self.task.counts:
            self._recollection.note_result(content)
        if publisher is None:
            return
        if kind in _OUTPUTS:
            publisher.output(str(kind), content)
        elif kind in _COMMS:
            self._publish_comm(publisher.request, str(kind), content, event)

    def _publisher_of(self, event: Dict) -> Publisher | None:
        """Who speaks for the cell an event names; for the last one when it names none."""
        cell = event.get("cell")
        return self._cells.get(cell, self._last) if isinstance(cell, str) else self._last

    def _publish_comm(self, request: Request, kind: str, content: Dict, event: Dict) -> None:
        session, metadata = self.front.session, event.get("metadata")
        frames = session.frames(
            kind,
            content,
            request.message.dicts[0],
            metadata=metadata if isinstance(metadata, dict) else None,
        )
        self.front.send("iopub", [topic(session.id, kind)], [*frames, *_buffers(event)])

    def _on_stream(self, event: Dict) -> None:
        """What a thread printed whose cell is not the last one."""
        cell, name = event.get("cell"), event.get("name")
        publisher = self._publisher_of(event)
        if publisher is None or not isinstance(cell, str) or name not in ("stdout", "stderr"):
            return
        if (cell, name) not in self._beside:
            if len(self._beside) >= _REMEMBERED:
                self._beside.clear()
            say = partial(publisher.stream, name)
            self._beside[cell, name] = Stream(self.loop, say)
        self._beside[cell, name].write(str(event.get("text", "")).encode("utf-8", "replace"))

    def interrupt(self) -> None:
        """As Ctrl-C in a terminal."""
        self._interrupted = self.task
        super().interrupt()

    def _on_missed(self, over: str) -> None:
        """An interrupt came while no cell's code ran, and ``over`` was the last that did.

        The cell that was meant gets another one, unless it was that.
        """
        task = self.task
        if task is not None and task is self._interrupted and task.request.msg_id != over:
            self._interrupt_again(_AGAIN_S)

    def _on_begin(self, msg_id: str) -> None:
        """A comm's message is being handled: what comes now is its own, as a cell's is."""
        request = self._asked.get(msg_id)
        if request is not None:
            self._flush()
            self._last = Publisher(self.front, request)

    def _on_reply(self, msg_id: str, content: Dict) -> None:
        if self.task is not None and msg_id == self.task.request.msg_id:
            self._end_execute(content)
            return
        request = self._asked.pop(msg_id, None)
        if request is None:
            return
        if request.msg_type in _COMMS:
            self._flush()
            self._last = self._cell
            self.front.status(request, "idle")
        else:
            self._answer(request, content)

    def _end_execute(self, content: Dict) -> None:
        if content.get("status") == "ok":
            found, payload = content.get("user_expressions"), content.get("payload")
            if self._last is not None:
                self._last.user_expressions = found if isinstance(found, dict) else {}
                self._last.payload = payload if isinstance(payload, list) else []
            self._end_cell(None)
            return
        lines = content.get("traceback")
        lines = [str(line) for line in lines] if isinstance(lines, list) else []
        name, value = str(content.get("ename", "Error")), str(content.get("evalue", ""))
        self._end_cell({"ename": name, "evalue": value, "traceback": lines})

    def _disconnect(self) -> None:
        for request in self._asked.values():
            if request.msg_type in _COMMS:
                self.front.status(request, "idle")
            else:
                self._answer(request, _GONE)
        self._asked.clear()
        for stream in self._beside.values():
            stream.flush()
        self.loop.remove_reader(self.agent.events)
        super()._disconnect()


_GONE: Dict = {
    "status": "error",
    "ename": "InnerKernelDied",
    "evalue": "the kernel in the container ended",
    "traceback": [],
}


def _buffers(event: Dict) -> list[bytes]:
    """The binary parts of a comm's message."""
    found = event.get("buffers")
    try:
        return [binascii.a2b_base64(one) for one in found] if isinstance(found, list) else []
    except (TypeError, ValueError, binascii.Error):
        return []


def _in_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _arguments(request: Request) -> Dict | None:
    """What a request asks of the session, checked; None if it asks nothing that we know."""
    content, kind = request.content, request.msg_type
    if kind == "comm_info_request":
        return {"target_name": content.get("target_name")}
    if kind in _COMMS:
        return {
            "type": kind,
            "content": content,
            "header": request.message.header,
            "metadata": request.message.metadata,
            "buffers": [_in_base64(one) for one in request.message.buffers],
        }
    if kind not in ("complete_request", "inspect_request", "is_complete_request"):
        return None
    code = content.get("code")
    code = code if isinstance(code, str) else ""
    cursor = content.get("cursor_pos")
    cursor = cursor if isinstance(cursor, int) and 0 <= cursor <= len(code) else len(code)
    return {"code": code, "cursor_pos": cursor, "detail_level": content.get("detail_level", 0)}
