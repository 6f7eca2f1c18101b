"""A kernel process over ``LocalWorkbench``: ``python local_kernel.py FILE FOLDER KIND``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from container_kernel.kernel.app import serve
from container_kernel.kernel.wire import ConnectionInfo

sys.path.insert(0, str(Path(__file__).parents[2]))


def make_cells(app):
    from container_kernel.kernel.cells import OwnCells
    from tests.kernel.local import LocalWorkbench

    folder, kind = Path(sys.argv[2]), sys.argv[3]
    specs = Path(os.environ.get("TEST_KERNELS", f"{sys.prefix}/share/jupyter/kernels"))
    options = {
        "ipykernel": {"kernels": specs, "commands": {"python": sys.executable}},
        "python": {},
        "sh": {"commands": {"sh": os.environ.get("TEST_SHELL", "/bin/sh")}},
        "nothing": {"base": None},
    }
    cells = OwnCells(app, lambda: LocalWorkbench(folder, **{"base": "main", **options[kind]}))
    cells.has_base = kind != "nothing"
    return cells


if __name__ == "__main__":
    serve(ConnectionInfo.read(Path(sys.argv[1])), make_cells)
