"""Outputs: what the last cells printed, for a cell that wants it as its input."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..errors import CellError
from ..record import field, record
from .wire import parse_object

LIMIT_BYTES = 4 << 20
_CELLS = 20
_HEADER, _CONTENT = 2, 5  # places in the frames of a message, from the delimiter on


@record(frozen=False)
class _Printed:
    """One cell's stream messages, as they were sent."""

    number: int
    cell_id: str | None
    contents: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def title(self) -> str:
        return f"the cell [{self.number}]"


class Outputs:
    """Keeps the messages themselves and reads them when they are asked for: passing them on must
    cost nothing. Cells run one at a time, so what is sent belongs to the last one begun.
    """

    def __init__(self) -> None:
        self._cells: deque[_Printed] = deque(maxlen=_CELLS)

    def begin(self, number: int, cell_id: object) -> None:
        """A cell begins."""
        self._cells.append(_Printed(number, cell_id if isinstance(cell_id, str) else None))

    def note(self, frames: Sequence[bytes]) -> None:
        """A message is published."""
        if self._cells and b'"stream"' in frames[_HEADER]:
            cell = self._cells[-1]
            if cell.size <= LIMIT_BYTES:
                cell.contents.append(frames[_CONTENT])
            cell.size += len(frames[_CONTENT])

    def text(self, which: str) -> str:
        """What a cell before the present one wrote to stdout.

        Args:
            which: its number, its id, or ``last``.

        Raises:
            CellError: it is not known, printed nothing, or too much.
        """
        earlier = list(self._cells)[:-1]
        if which == "last":
            found = earlier[-1] if earlier else None
        else:
            known = (one for one in reversed(earlier) if which in (str(one.number), one.cell_id))
            found = next(known, None)
        if found is None:
            raise CellError(
                f"no cell {which!r} ran before this one",
                hint=f"name it by its number, by its id, or last; the {_CELLS} before are kept",
            )
        if found.size > LIMIT_BYTES:
            raise CellError(
                f"{found.title} printed more than {LIMIT_BYTES >> 20} MiB",
                hint="have it write a file in /work, and name that: --stdin FILE",
            )
        contents = (parse_object(content) for content in found.contents)
        text = "".join(str(c.get("text", "")) for c in contents if c.get("name") == "stdout")
        if not text:
            raise CellError(f"{found.title} printed nothing", hint="have it print what is wanted")
        return text
