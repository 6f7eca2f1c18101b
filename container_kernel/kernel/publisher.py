"""The outputs and the answer of one execute_request that the outer kernel handles itself."""

from __future__ import annotations

import time

from ..errors import ContainerKernelError, out_of_files
from .front import Front, Request
from .loop import lines_of
from .wire import Dict, date

ABORT_WINDOW_S = 0.05
"""A failure is answered no sooner than this after its cell began.

A front end sends all cells at once, and relies on a failure to abort those behind it; but they come
one by one, and a cell may fail sooner than the next one has arrived.
"""

_RED, _BOLD, _OFF = "\x1b[31m", "\x1b[1m", "\x1b[0m"


class Publisher:
    """Speaks for one cell: busy, input, outputs, reply, idle."""

    def __init__(self, front: Front, request: Request) -> None:
        self._front = front
        self.request = request
        self.count = 0
        self.is_announced = False
        self._started = time.monotonic()
        self._start_time = time.time()
        self.user_expressions: Dict = {}
        self.payload: list[object] = []

    @property
    def is_silent(self) -> bool:
        """Whether nothing but the reply is wanted."""
        return bool(self.request.content.get("silent"))

    @property
    def is_watched(self) -> bool:
        """Whether somebody may be looking on, as far as one can know: they can be asked."""
        return bool(self.request.content.get("allow_stdin", True))

    @property
    def too_soon_s(self) -> float:
        """How long a failure must still wait to be answered; 0 or less when it need not."""
        if not self.request.stops_on_error:
            return 0.0
        return self._started + ABORT_WINDOW_S - time.monotonic()

    def announce(self, count: int) -> None:
        """Publish busy, and the cell with its number."""
        self.count = count
        if self.is_announced:
            return
        self.is_announced = True
        self._front.status(self.request, "busy")
        if not self.is_silent:
            code = self.request.content.get("code", "")
            self._publish("execute_input", {"code": code, "execution_count": count})

    def _publish(self, msg_type: str, content: Dict) -> None:
        self._front.publish(self.request, msg_type, content)

    def output(self, msg_type: str, content: Dict) -> None:
        """Publish an output, unless the request is silent."""
        if not self.is_silent:
            self._publish(msg_type, content)

    def stream(self, name: str, text: str) -> None:
        """Publish text of stdout or stderr."""
        if text:
            self.output("stream", {"name": name, "text": text})

    def ok(self) -> None:
        """Answer that it went well."""
        found = {"user_expressions": self.user_expressions, "payload": self.payload}
        self._answer({"status": "ok", **found})

    def error(self, error: BaseException) -> None:
        """Show an error and answer with it."""
        self.failure(describe(error))

    def failure(self, content: Dict) -> None:
        """Show an error that is described already (ename, evalue, traceback); answer with it."""
        self.output("error", content)
        self._answer({"status": "error", **content, "user_expressions": {}, "payload": []})

    def _answer(self, content: Dict) -> None:
        metadata = {"started": date(self._start_time), "status": content["status"]}
        content = {**content, "execution_count": self.count}
        self._front.reply(self.request, "execute_reply", content, metadata)
        self._front.status(self.request, "idle")


def abort(front: Front, request: Request) -> None:
    """Answer a cell that will not run, because one before it failed."""
    front.status(request, "busy")
    metadata = {"started": date(), "status": "aborted"}
    front.reply(request, "execute_reply", {"status": "aborted"}, metadata)
    front.status(request, "idle")


def describe(error: BaseException) -> Dict:
    """An error as the three fields a front end shows.

    What the user can mend is its message and what to do, without our traceback.
    """
    error = out_of_files(error) or error
    name = type(error).__name__
    if isinstance(error, ContainerKernelError):
        message = error.message
        shown = [f"{_RED}{name}{_OFF}: {message}"]
        if error.hint:
            shown.append(f"{_BOLD}hint{_OFF}: {error.hint}")
        shown += getattr(error, "__notes__", ())
    else:
        message, shown = str(error), lines_of(error)
    return {"ename": name, "evalue": message, "traceback": shown}
