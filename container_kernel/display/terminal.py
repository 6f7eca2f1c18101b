"""Terminal: a build's events as lines of text, with a live line where there is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..build.events import Event, StepFailed, StepFinished, StepLog, StepStarted
from .cards import cost, line
from .log import Log, plain, plain_lines

UPDATE_INTERVAL_S = 0.1
BAR_CELLS = 12
_ERASE = "\r\x1b[K"


class TerminalBoard:
    """Gives ``write`` what an event says: one line per step that ended.

    On a terminal (``width`` is its columns) the running step has a live line below: bar, title,
    seconds, its last output. Elsewhere (``width`` is None) a step's output is copied as it comes,
    so that a log file has all of it.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        width: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._width = width or 80
        self._is_live = width is not None
        self._running: StepStarted | None = None
        self._log = Log(50)
        self._started = self._shown = 0.0

    def on_event(self, event: Event) -> None:
        """Show what an event changes."""
        match event:
            case StepStarted():
                self._running, self._log = event, Log(50)
                self._started = self._shown = self._clock()
                live = self._is_live
                self._write(_live(event, 0.0, "", self._width) if live else line(event) + "\n")
            case StepLog():
                self._take(event.text)
            case StepFinished() | StepFailed():
                self._end(event)

    def _take(self, text: str) -> None:
        if not self._is_live:
            self._write(plain_lines(text))
            return
        self._log.write(text)
        now = self._clock()
        if self._running and now - self._shown >= UPDATE_INTERVAL_S:
            self._shown = now
            last = plain((self._log.last(1) or ("",))[0])
            self._write(_live(self._running, now - self._started, last, self._width))

    def _end(self, event: StepFinished | StepFailed) -> None:
        before = _ERASE if self._is_live else ""
        output = ""
        if self._is_live and isinstance(event, StepFailed):
            output = "".join(f"    {plain(text)}\n" for text in self._log.last(10))
        self._write(f"{before}{_coloured(event, self._is_live)}\n{output}")
        self._running = None


def _live(event: StepStarted, elapsed: float, last: str, width: int) -> str:
    """The line that is drawn over and over while a step runs."""
    done = BAR_CELLS * max(event.number - 1, 0) // max(event.total, 1)
    bar = "█" * done + "░" * (BAR_CELLS - done)
    text = f"{bar} {line(event, elapsed)}  {last}"
    return f"{_ERASE}{text[: max(width - 1, 20)]}"


def _coloured(event: StepFinished | StepFailed, is_live: bool) -> str:
    text = " · ".join(filter(None, [line(event), cost(event)]))
    if not is_live:
        return text
    return f"\x1b[{31 if isinstance(event, StepFailed) else 32}m{text[0]}\x1b[0m{text[1:]}"
