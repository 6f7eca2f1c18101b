"""Notebook file: which cells an .ipynb holds, read as the JSON it is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from ..errors import CellError
from ..oci.digest import Digest

_BY_TEXT = "text:"


def identity_of(cell_id: object, text: str) -> str:
    """Who a cell is: its id, or without one (before nbformat 4.5) its text."""
    return str(cell_id) if cell_id else f"{_BY_TEXT}{Digest.of(text.encode()).hex}"


def is_by_text(identity: str) -> bool:
    """Whether a cell has no id of its own."""
    return identity.startswith(_BY_TEXT)


def order_of(notebook: Path) -> list[str]:
    """Who its code cells are, in order; empty when it cannot be read."""
    try:
        return [identity for identity, _ in code_cells(notebook)]
    except CellError:
        return []


def code_cells(notebook: Path) -> list[tuple[str, str]]:
    """Identity and text of its code cells.

    Raises:
        CellError: the file is no notebook.
    """
    found = []
    for cell in _cells(notebook):
        if cell.get("cell_type") == "code":
            source = cell.get("source", "")
            text = source if isinstance(source, str) else "".join(source)
            found.append((identity_of(cell.get("id"), text), text))
    return found


def _cells(notebook: Path) -> list[dict[str, Any]]:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if not all(isinstance(cell, dict) for cell in cells):
            raise TypeError("cells must be objects")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CellError(f"{notebook} cannot be read as a notebook: {error}") from error
    return with_ids_apart(cells)


def with_ids_apart(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells, where one whose id another had before has one of its own.

    Files that were put together by hand or by a merge have such cells.
    """
    taken = {cell.get("id") for cell in cells}
    seen: set[object] = set()
    found = []
    for cell in cells:
        if (cell_id := cell.get("id")) in seen:
            apart = (f"{cell_id}-{number}" for number in itertools.count(2))
            cell_id = next(name for name in apart if name not in taken)
            cell = {**cell, "id": cell_id}
        if cell_id:
            seen.add(cell_id)
            taken.add(cell_id)
        found.append(cell)
    return found
