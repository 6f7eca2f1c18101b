"""Scratch: what run cells wrote, copied to be frozen.

It was written in a container, where links lead anywhere: none is followed here.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .. import syscalls
from ..errors import CellError, StoreError
from ..folders import remove_tree
from ..store.snapshots import Active, Snapshots
from .host import find_tool

NOT_FROZEN = ("tmp", "run", "var/tmp")


def copy(snapshots: Snapshots, scratch: Active, points: Sequence[str]) -> Active:
    """A new active snapshot with what is in ``scratch``, less what is never frozen.

    ``points`` are places that were made to mount on.

    Raises:
        StoreError: the disk is full.
        CellError: something cannot be copied, as folders deeper than a path may be long.
    """
    active = snapshots.prepare(scratch.parent)
    try:
        _copy(scratch.upper, active.upper)
        clean(active.upper, remove=NOT_FROZEN, if_empty=points)
    except BaseException:
        snapshots.remove(active)
        raise
    return active


def _copy(source: Path, target: Path) -> None:
    tool = [str(find_tool("cp")), "-a", "--reflink=auto"]
    done = subprocess.run(
        [*tool, f"{source}/.", target], stderr=subprocess.PIPE, env={"LC_ALL": "C"}, check=False
    )
    if not done.returncode:
        return
    reason = done.stderr.decode(errors="replace").strip().rpartition(": ")[2]
    is_full = os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason
    raise (StoreError if is_full else CellError)(
        f"what run cells wrote cannot be copied: {reason or 'cp(1) was killed'}",
        hint="free space there" if is_full else "remove what is in the way, in a cell, and again",
    )


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
                        remove_tree(f"/proc/{os.getpid()}/fd/{folder}/{name}")
                    else:
                        os.rmdir(name, dir_fd=folder)
                finally:
                    os.close(folder)
    finally:
        os.close(root)
