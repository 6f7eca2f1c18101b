"""From a command line to a serving kernel; what a first reply does not need comes later."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError
from .app import App, serve
from .wire import ConnectionInfo

if TYPE_CHECKING:
    from ..runtime.namespace import Namespace
    from ..workbench import Workbench
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
    serve(info, lambda app: _make_cells(app, namespace))


def _connection_file(arguments: list[str]) -> Path:
    if len(arguments) == 2 and arguments[0] in ("-f", "--connection-file"):
        return Path(arguments[1])
    if len(arguments) == 1 and arguments[0].startswith("-f="):
        return Path(arguments[0][3:])
    sys.exit(_USAGE)


def _make_cells(app: App, namespace: Namespace | HostError) -> OwnCells:
    from .cells import OwnCells

    notebook = _notebook()

    def make_workbench() -> Workbench:
        from ..config import load
        from ..workbench import Workbench
        from .magics import build_items

        if isinstance(namespace, HostError):
            raise namespace
        folder = notebook.parent if notebook else Path.cwd()
        return Workbench(load(), namespace, folder, parse=build_items, notebook=notebook)

    return OwnCells(app, make_workbench, notebook)


def _notebook() -> Path | None:
    """The notebook's file, where the server tells (JPY_SESSION_NAME)."""
    name = os.environ.get("JPY_SESSION_NAME", "")
    path = Path.cwd() / name
    return path if name.endswith(".ipynb") and path.is_file() else None
