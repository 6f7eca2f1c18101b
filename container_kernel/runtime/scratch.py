"""Scratch: what run cells wrote, copied to be frozen.

It was written in a container, where links lead anywhere: none is followed here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .. import syscalls
from ..store.snapshots import Active, Snapshots
from .host import find_tool

NOT_FROZEN = ("tmp", "run", "var/tmp")


def copy(snapshots: Snapshots, scratch: Active, points: Sequence[str]) -> Active:
    """A new active snapshot with what is in ``scratch``, less what is never frozen.

    ``points`` are places that were made to mount on.
    """
    active = snapshots.prepare(scratch.parent)
    tool = [str(find_tool("cp")), "-a", "--reflink=auto"]
    subprocess.run([*tool, f"{scratch.upper}/.", active.upper], check=True)
    clean(active.upper, remove=NOT_FROZEN, if_empty=points)
    return active


def clean(top: Path, *, remove: Sequence[str], if_empty: Sequence[str]) -> None:
    """Remove folders below ``top`` with all in them, and others if they are empty."""
    root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in (*remove, *if_empty):
            parent, _, name = path.strip("/").rpartition("/")
            with suppress(OSError):
                folder = syscalls.open_in_root(root, parent or ".", os.O_RDONLY, links=False)
                try:
                    if path in remove:
                        shutil.rmtree(name, dir_fd=folder)
                    else:
                        os.rmdir(name, dir_fd=folder)
                finally:
                    os.close(folder)
    finally:
        os.close(root)
