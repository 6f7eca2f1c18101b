"""From a command line to a serving kernel; what a first reply does not need comes later."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError
from .head_start import HeadStart
from .wire import ConnectionInfo

if TYPE_CHECKING:
    from ..build.step import Items, Use
    from ..runtime.namespace import Namespace
    from ..workbench import Workbench
    from .app import App
    from .cells import OwnCells

_USAGE = "usage: python -m container_kernel.kernel -f CONNECTION_FILE"


def main(arguments: list[str], namespace: Namespace | HostError) -> None:
    """Be a kernel in ``namespace``, where ``namespace.enter`` has brought this process.

    If it could not, its error is what every cell says.
    """
    file = _connection_file(arguments)
    try:
        info = ConnectionInfo.read(file)
    except (OSError, ValueError) as error:
        sys.exit(f"container_kernel: {file}: {error}")
    notebook = _notebook()

    def make_workbench() -> Workbench:
        if isinstance(namespace, HostError):
            raise namespace
        return _open_workbench(namespace, notebook)

    head_start = HeadStart(make_workbench) if notebook else None
    from .app import serve

    def make_cells(app: App) -> OwnCells:
        from .cells import OwnCells

        return OwnCells(app, make_workbench, notebook, head_start)

    serve(info, make_cells)


def _connection_file(arguments: list[str]) -> Path:
    if len(arguments) == 2 and arguments[0] in ("-f", "--connection-file"):
        return Path(arguments[1])
    if len(arguments) == 1 and arguments[0].startswith("-f="):
        return Path(arguments[0][3:])
    sys.exit(_USAGE)


def _open_workbench(namespace: Namespace, notebook: Path | None) -> Workbench:
    from ..config import load
    from ..workbench import Workbench

    folder = notebook.parent if notebook else Path.cwd()
    return Workbench(load(), namespace, folder, parse=_build_items, notebook=notebook)


def _build_items(code: str) -> Items | Use | None:
    from .magics import build_items

    return build_items(code)


def _notebook() -> Path | None:
    """The notebook's file, where the server tells (JPY_SESSION_NAME)."""
    name = os.environ.get("JPY_SESSION_NAME", "")
    path = Path.cwd() / name
    return path if name.endswith(".ipynb") and path.is_file() else None
