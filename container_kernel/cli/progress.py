"""Progress: which cell of a notebook runs, and how its build steps stand, on stderr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..display.log import plain
from .streams import to_stderr

_ERASE = "\r\x1b[K"
_DONE = ("✓", "✗")


class Progress:
    """Shows cells as a bar on a terminal (``width`` columns), as lines elsewhere."""

    def __init__(self, note: Callable[[str], None], width: int | None) -> None:
        self._note = note
        self._width = width
        self._bar = ""

    def start(self, number: int, total: int, source: str) -> None:
        """A cell begins."""
        first = next((line for line in source.splitlines() if line.strip()), "")
        done = 16 * (number - 1) // total
        self._bar = f"{'█' * done}{'░' * (16 - done)} cell {number}/{total}"
        if self._width:
            self._draw(plain(first))
        else:
            self._note(f"cell {number}/{total}  {plain(first)[:100]}")

    def pass_over(self, source: str) -> None:
        """A cell that moves a session to and fro is not run."""
        first = plain(source.strip().partition("\n")[0])
        self._note(f"passed over, as it is for live sessions: {first[:100]}")

    def on_display(self, content: dict[str, Any]) -> None:
        """An output is shown or redrawn: the first line of a step's card is of interest."""
        if not content.get("transient", {}).get("display_id"):
            return
        text = str(content.get("data", {}).get("text/plain", ""))
        first, _, rest = text.partition("\n")
        first, last = plain(first), plain(rest.rpartition("\n")[2].strip())
        if first.startswith(_DONE):
            self._erase()
            self._note(f"    {first}")
        elif first.startswith("…") and self._width:
            self._draw(f"{first}  {last}")

    def end(self) -> None:
        """The cell is done."""
        self._erase()

    def _draw(self, text: str) -> None:
        assert self._width
        to_stderr(f"{_ERASE}{self._bar}  {text}"[: self._width + len(_ERASE) - 1])

    def _erase(self) -> None:
        if self._width:
            to_stderr(_ERASE)
