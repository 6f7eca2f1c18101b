"""The order of shell requests: first in, first out, one cell at a time.

A request that runs no cell goes on while a cell runs, unless a cell waits before it. So what the
front end sent earlier is never overtaken, and the inner kernel's own queue stays one cell deep:
those that wait here can be aborted when the running one fails.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .front import Request


class ShellQueue:
    """Calls ``start`` with each request when its turn has come."""

    def __init__(self, start: Callable[[Request], object]) -> None:
        self._start = start
        self._waiting: deque[Request] = deque()
        self._is_advancing = False
        self.running: Request | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_cells(self) -> bool:
        """Whether a cell waits."""
        return any(request.is_execute for request in self._waiting)

    def push(self, request: Request) -> None:
        """Add a request; it may start at once."""
        self._waiting.append(request)
        self._advance()

    def done(self, request: Request) -> None:
        """The running cell has been answered; the next one may start."""
        if self.running is request:
            self.running = None
            self._advance()

    def take_cells(self) -> list[Request]:
        """Remove and return the cells that wait now, in order; the rest stays."""
        cells = [request for request in self._waiting if request.is_execute]
        self._waiting = deque(r for r in self._waiting if not r.is_execute)
        return cells

    def _advance(self) -> None:
        # A request that is answered at once calls done() from within start(): no recursion.
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._waiting and not (self.running and self._waiting[0].is_execute):
                request = self._waiting.popleft()
                if request.is_execute:
                    self.running = request
                self._start(request)
        finally:
            self._is_advancing = False
