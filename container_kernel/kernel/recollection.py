"""What ran in an agent's session, as front ends ask for it: the agents themselves keep none."""

from __future__ import annotations

import sys
from collections import deque
from fnmatch import fnmatchcase

from ..record import record
from .wire import Dict

_MOST = 1000


@record(frozen=False)
class Past:
    """One cell that ran, and its result as text if it had one."""

    count: int
    code: str
    result: str | None = None


class Recollection:
    """The last cells of one session."""

    def __init__(self) -> None:
        self._cells: deque[Past] = deque(maxlen=_MOST)

    def add(self, count: int, code: str) -> None:
        """A cell begins to run."""
        if code.strip():
            self._cells.append(Past(count, code))

    def note_result(self, content: Dict) -> None:
        """The last cell's ``execute_result``."""
        data = content.get("data")
        text = data.get("text/plain") if isinstance(data, dict) else None
        if self._cells and isinstance(text, str):
            self._cells[-1].result = text

    def answer(self, content: Dict) -> Dict:
        """The reply to a history_request; whatever is wrong in it counts as left out."""
        found = list(self._cells)
        kind = content.get("hist_access_type")
        if kind == "range":
            start, stop = _whole(content.get("start"), 0), _whole(content.get("stop"), sys.maxsize)
            found = [past for past in found if start <= past.count < stop]
        elif kind == "search":
            pattern = str(content.get("pattern") or "*")
            found = [past for past in found if fnmatchcase(past.code, pattern)]
            if content.get("unique"):
                found = list({past.code: past for past in found}.values())
        if kind != "range":
            found = found[-n:] if (n := _whole(content.get("n"), 10)) else []
        items: list[object] = [[0, p.count, p.code] for p in found]
        if content.get("output"):
            items = [[0, p.count, [p.code, p.result]] for p in found]
        return {"status": "ok", "history": items}


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default
