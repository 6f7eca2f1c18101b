"""Log: what a step printed, kept within bounds and made safe to show.

A step's output is anybody's text. It may redraw lines with carriage returns, colour them, move the
cursor, be megabytes long or contain HTML: kept are the last lines, as a terminal would have left
them, with colours and nothing else of it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from . import markup

MOST_LINES = 400
MOST_CHARACTERS = 1000
MOST_IN_ALL = 64_000

# Patterns are compiled when first used: a kernel's start waits for none of them.
_COLOUR = r"\x1b\[([0-9;]*)m"
_ESCAPE = (
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # cursor, colours
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|[ -/]*[0-~])"
)
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
# Each stands out as well from a light ground (JupyterLab's #f5f5f5) as from a dark one (#212121).
_COLOURS = {
    31: "#d74c48",
    32: "#2a8e3d",
    33: "#a0740a",
    34: "#437ad8",
    35: "#a95cc4",
    36: "#1a8897",
    90: "#7c7c7c",
}


class Log:
    """The last lines of a stream of text."""

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=most_lines)
        self._open = ""
        self.count = 0

    def write(self, text: str) -> None:
        """Take the next piece; a line may come in several."""
        *whole, rest = text.split("\n")
        for line in whole:
            self._lines.append(_drawn(self._open + line))
            self._open = ""
            self.count += 1
        # Of a line that never ends only what can still be seen is worth its memory.
        self._open = (self._open + rest)[-8 * MOST_CHARACTERS :]

    @property
    def lines(self) -> tuple[str, ...]:
        """What is kept, oldest first, colours in it; the unfinished line is the last."""
        kept: list[str] = []
        room = MOST_IN_ALL
        for line in self._backwards():
            room -= len(line)
            if room < 0:
                break
            kept.append(line)
        return tuple(reversed(kept))

    @property
    def total(self) -> int:
        """How many lines there were."""
        return self.count + bool(_drawn(self._open))

    def last(self, count: int) -> tuple[str, ...]:
        """The last ``count`` lines that are not blank."""
        found: list[str] = []
        for line in self._backwards():
            if plain(line).strip():
                found.append(line)
            if len(found) == count:
                break
        return tuple(reversed(found))

    def _backwards(self) -> Iterator[str]:
        if last := _drawn(self._open):
            yield last
        yield from reversed(self._lines)


def _drawn(line: str) -> str:
    """The line as a terminal shows it in the end: what follows the last carriage return."""
    parts = [part for part in line.rstrip("\r").split("\r") if part]
    return parts[-1][:MOST_CHARACTERS] if parts else ""


def plain(line: str) -> str:
    """``line`` without colours and control characters."""
    return re.sub(_CONTROL, "", re.sub(_ESCAPE, "", line))


def plain_lines(text: str) -> str:
    """``text`` of several lines without colours and control characters."""
    return "\n".join(plain(line) for line in text.split("\n"))


def as_html(line: str) -> str:
    """``line`` escaped, its colours as spans that are all closed again."""
    if "\x1b" not in line:
        return markup.text(re.sub(_CONTROL, "", line))
    parts = []
    style = ""
    for index, piece in enumerate(re.split(_COLOUR, line)):
        if index % 2:
            style = _style(piece, style)
        elif text := markup.text(plain(piece)):
            parts.append(f'<span style="{style}">{text}</span>' if style else text)
    return "".join(parts)


def _style(codes: str, style: str) -> str:
    """The style after the colour codes of one escape sequence."""
    for code in (int(code[:4] or 0) for code in codes.split(";")):
        colour = _COLOURS.get(code, _COLOURS.get(code - 60))
        if code in (0, 39, 22):
            style = ""
        elif code == 1:
            style += "font-weight:600;"
        elif colour:
            style = f"color:{colour};"
    return style[:80]
