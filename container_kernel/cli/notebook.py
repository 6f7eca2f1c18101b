"""Notebooks as files: read, found, with parameters put in."""

from __future__ import annotations

import ast
import json
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
        if found["nbformat"] == 4 and isinstance(found["cells"], list):
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    raise UsageError(f"{path} is not a notebook of format 4", hint="open and save it in Jupyter")


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
