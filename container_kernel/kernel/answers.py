"""Answers: what front ends are told without a cell, by us, by the inner kernel or by nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from .. import __version__
from .front import Request
from .info import kernel_info, no_debugger
from .introductions import Introductions
from .wire import Dict

if TYPE_CHECKING:
    from ..runtime.container import Container
    from .app import App
    from .usage import Meter

# What a front end waits for while its user types, and what changes nothing.
_LOOK_UPS = {"complete_request", "inspect_request", "is_complete_request", "kernel_info_request"}
# What is answered when no inner kernel runs that could answer better.
_EMPTY: dict[str, Callable[[Dict], Dict]] = {
    "complete_request": lambda c: {
        "status": "ok",
        "matches": [],
        "cursor_start": c.get("cursor_pos", 0),
        "cursor_end": c.get("cursor_pos", 0),
        "metadata": {},
    },
    "inspect_request": lambda _: {"status": "ok", "found": False, "data": {}, "metadata": {}},
    "is_complete_request": lambda _: {"status": "unknown"},
    "history_request": lambda _: {"status": "ok", "history": []},
    "comm_info_request": lambda _: {"status": "ok", "comms": {}},
    "debug_request": no_debugger,
    "list_subshell_request": lambda _: {"status": "ok", "subshell_id": []},
}


class Answers:
    """Serves the requests of one session that run no cell."""

    def __init__(self, app: App, ports: Mapping[str, int]) -> None:
        self._app = app
        self._ports = {f"{channel}_port": port for channel, port in ports.items()}
        self.introductions = Introductions(app.loop, self._introduce)

    def goes_aside(self, request: Request) -> bool:
        """Whether it need not wait for the cells before it.

        An inner kernel would not answer while a cell runs in it. While we build, somebody can.
        """
        if request.message.header.get("subshell_id") and self._app.inners.ready:
            return self._app.inners.ready.has_subshells
        return request.msg_type in _LOOK_UPS and self._app.inners.task is None

    def serve(self, request: Request) -> None:
        """Answer what runs no cell: we, or the inner kernel, or nobody with an empty reply."""
        kind = request.msg_type
        if kind == "kernel_info_request":
            self.introductions.ask(request)
            return
        if kind == "connect_request":
            self._answer(request, {"status": "ok", **self._ports})
            return
        if kind == "usage_request":
            self._answer(request, self._usage.read(self._container()))
            return
        ours = self._our_answer(request)
        if ours is not None:
            self._answer(request, ours)
        elif self._app.inners.ready and self._app.inners.ready.forward(request):
            return
        elif kind in _EMPTY:
            self._answer(request, _EMPTY[kind](request.content))
        elif kind == "comm_open":
            self._app.front.status(request, "busy")
            comm_id = request.content.get("comm_id", "")
            self._app.front.publish(request, "comm_close", {"comm_id": comm_id, "data": {}})
            self._app.front.status(request, "idle")

    def _our_answer(self, request: Request) -> Dict | None:
        kinds = ("complete_request", "inspect_request", "is_complete_request")
        code = request.content.get("code")
        if request.msg_type not in kinds or not isinstance(code, str):
            return None
        if "%" not in code:
            return None
        return self._app.cells.assist(request.msg_type, code, request.content)

    def _answer(self, request: Request, content: Dict) -> None:
        self._app.front.status(request, "busy")
        reply = request.msg_type.removesuffix("_request") + "_reply"
        self._app.front.reply(request, reply, content)
        self._app.front.status(request, "idle")

    @cached_property
    def _usage(self) -> Meter:
        from .usage import Meter

        return Meter()

    def _container(self) -> Container | None:
        """The one that run cells go to, if it runs."""
        inner = self._app.inners.current
        return inner.container if inner is not None and inner.container.poll() is None else None

    def _introduce(self, request: Request) -> None:
        self._answer(
            request, kernel_info(__version__, self._app.inners.last_info, self._app.isolation)
        )
