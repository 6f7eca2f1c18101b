"""From a command line to a serving kernel; what a first reply does not need comes later."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError
from ..record import record
from .connection import ConnectionInfo
from .head_start import HeadStart
from .opening import Opening

if TYPE_CHECKING:
    from ..runtime.namespace import Namespace
    from .app import App
    from .cells import OwnCells

_USAGE = (
    "usage: python -m container_kernel.kernel -f CONNECTION_FILE "
    "[--image REF] [--language NAME] [--spec KERNELSPEC_JSON]"
)
_FLAGS = {"-f": "file", "--image": "image", "--language": "language", "--spec": "spec"}


@record(kw_only=True)
class Start:
    """How the kernel is started.

    ``image`` is what the notebook stands on where no cell says so, ``language`` that image's until
    it answers itself, ``spec`` the ``kernel.json`` to be started in it instead of its own.
    """

    file: str
    image: str | None = None
    language: str = ""
    spec: str | None = None


def main(arguments: Sequence[str], namespace: Namespace | HostError) -> None:
    """Be a kernel in ``namespace``, where ``namespace.enter`` has brought this process.

    If it could not, its error is what every cell says.
    """
    start = read(arguments)
    try:
        info = ConnectionInfo.read(Path(start.file))
    except (OSError, ValueError) as error:
        sys.exit(f"container_kernel: {start.file}: {error}")
    opening = Opening(namespace, _notebook())
    head_start = None
    if start.spec is None:
        is_guess = opening.notebook is None and start.image is None
        head_start = HeadStart(opening, start.image, is_guess=is_guess)
    from .app import serve

    def make_cells(app: App) -> OwnCells:
        from .cells import Given, OwnCells

        given = Given.of(start.image, start.spec) if start.image is not None else None
        return OwnCells(app, opening.workbench, opening.notebook, head_start, given)

    serve(info, make_cells, start.language, head_start, _isolation(namespace, head_start))


def read(arguments: Sequence[str]) -> Start:
    """What the command line says; ends the process where that is nothing sensible."""
    values: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        name = "-f" if name == "--connection-file" else name
        if equals and _is_trait(name):
            continue
        if name not in _FLAGS or not (equals or rest):
            sys.exit(_USAGE)
        values[_FLAGS[name]] = value if equals else rest.pop(0)
    if "file" not in values:
        sys.exit(_USAGE)
    return Start(**values)


def _isolation(namespace: Namespace | HostError, head_start: HeadStart | None) -> str:
    """What this host gives, as far as that is known without a wait."""
    if isinstance(namespace, HostError):
        return f"no isolation, so no containers: {namespace.message}"
    if head_start is None or head_start.workbench is None:
        return ""
    return str(head_start.workbench.host.level)


def _is_trait(name: str) -> bool:
    """Whether it sets something of IPython's, as in ``--HistoryManager.hist_file=:memory:``.

    nbclient adds that for whatever kernel is called python3; a container's history is its own.
    """
    return name.startswith("--") and name[2:3].isupper() and "." in name


def _notebook() -> Path | None:
    """The notebook's file, where the server tells (JPY_SESSION_NAME)."""
    name = os.environ.get("JPY_SESSION_NAME", "")
    path = Path.cwd() / name
    return path if name.endswith(".ipynb") and path.is_file() else None
