"""Staleness: which outputs of a notebook were made in another environment than it builds now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CellError
from ..record import record
from . import marking


@record
class Stale:
    """A cell whose outputs another image made: its id, first line, and both images' digests."""

    cell: str
    title: str
    stage: str
    made_in: str
    now: str | None


def is_stale(mark: Mapping[str, Any], stages: Mapping[str, Any]) -> bool:
    """Whether what ``mark`` says of a cell is no longer so; ``stages`` as in ``%layers --json``."""
    stage = stages.get(str(mark.get("stage")))
    return stage is None or stage["digest"] != mark.get("image")


def find(notebook: Path, stages: Mapping[str, Any]) -> list[Stale]:
    """The stale cells of the notebook as it is saved.

    Raises:
        CellError: it cannot be read.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise CellError(f"{notebook.name} cannot be read as a notebook: {error}") from error
    found = []
    for cell in cells:
        mark = cell.get("metadata", {}).get(marking.KEY)
        if mark and is_stale(mark, stages):
            title = "".join(cell.get("source", "")).strip().partition("\n")[0]
            stage = str(mark.get("stage"))
            now = stages.get(stage, {}).get("digest")
            found.append(Stale(str(cell.get("id", "")), title, stage, str(mark.get("image")), now))
    return found


def text(found: list[Stale]) -> str:
    """In words."""
    lines = [
        f"{one.cell or 'a cell'}  {one.title}\n"
        f"  made in {one.made_in[:19]}, stage {one.stage} is {(one.now or 'not built')[:19]} now"
        for one in found
    ]
    hint = "container-kernel run --stale runs these again"
    return "\n".join([*lines, hint]) if lines else "no output is stale"
