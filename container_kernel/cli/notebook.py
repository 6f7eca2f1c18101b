"""Notebooks as files: read, found, with parameters put in."""

from __future__ import annotations

import ast
import json
from keyword import iskeyword
from pathlib import Path
from typing import Any

from ..errors import UsageError


def path_of(text: str) -> Path:
    """The notebook called ``text``.

    Raises:
        UsageError: there is no such file.
    """
    path = Path(text)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"notebook {text} {what}", hint="name an .ipynb file")
    return path.absolute()


def document(path: Path) -> dict[str, Any]:
    """The notebook as JSON, without the second that importing nbformat takes.

    Raises:
        UsageError: it is not a notebook of format 4.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise refused(path) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if not _is_like_a_notebook(found):
        raise refused(path)
    return dict(found)


def refused(path: Path) -> UsageError:
    """In words, that the file is something else, or damaged."""
    return UsageError(f"{path} is not a notebook of format 4", hint="open and save it in Jupyter")


def _is_like_a_notebook(found: object) -> bool:
    """Whether all that is looked at here has the type it must have; a whole schema takes long."""
    if not isinstance(found, dict) or found.get("nbformat") != 4:
        return False
    cells, metadata = found.get("cells"), found.get("metadata")
    if not isinstance(cells, list) or not isinstance(metadata, dict):
        return False
    kernelspec = metadata.get("kernelspec", {})
    if not isinstance(kernelspec, dict) or not isinstance(kernelspec.get("name", ""), str):
        return False
    return all(map(_is_like_a_cell, cells))


def _is_like_a_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        return False
    source = cell.get("source", "")
    lines = source if isinstance(source, list) else [source]
    return (
        all(isinstance(line, str) for line in lines)
        and isinstance(cell.get("metadata", {}), dict)
        and not isinstance(cell.get("id"), list | dict)
    )


def with_all_fields(found: dict[str, Any]) -> dict[str, Any]:
    """A `document` with what nbformat needs each cell to have, where somebody left it out."""
    for cell in found["cells"]:
        cell.setdefault("source", "")
        cell.setdefault("metadata", {})
        if cell["cell_type"] == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
    return found


def check_names(pairs: list[tuple[str, str]]) -> None:
    """Return if each name of ``-p NAME VALUE`` can be a variable.

    Raises:
        UsageError: one cannot; the cell that sets them would be no Python.
    """
    for name, _ in pairs:
        if not name.isidentifier() or iskeyword(name):
            raise UsageError(
                f"-p takes the name of a Python variable, found {name!r}",
                hint="write -p NAME VALUE, as in: -p seed 7",
            )


def value(text: str) -> object:
    """The value of ``-p NAME VALUE``: a Python literal or JSON's true, false, null, else text."""
    words = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def with_parameters(notebook: Any, pairs: list[tuple[str, str]]) -> Any:
    """``notebook`` with papermill's cell of parameters, after the one it was written with.

    Raises:
        UsageError: papermill is not here, or the notebook has no such cell.
    """
    if not pairs:
        return notebook
    try:
        from papermill.parameterize import parameterize_notebook
    except ImportError:
        raise UsageError(
            "-p needs papermill, which is not installed",
            hint="pip install 'container-kernel[papermill]'",
        ) from None
    if not any("parameters" in cell.metadata.get("tags", ()) for cell in notebook.cells):
        raise UsageError(
            "-p needs a cell tagged `parameters` in the notebook, and there is none",
            hint="tag one, after the build cells",
        )
    for cell in notebook.cells:  # papermill reads notebooks itself and relies on these
        cell.metadata.setdefault("tags", [])
    notebook.metadata.setdefault("papermill", {})
    given = {name: value(text) for name, text in pairs}
    return parameterize_notebook(notebook, given, kernel_name="python3", language="python")
