"""Kept: a tree that became no layer, and is there to be looked at for a while.

It stays the active snapshot that it was, so nothing takes it for a layer: it has no name that
follows from its bytes, no record and no row. One file more beside it says what it is, and its lock
is shared from then on. So other processes can hold it too, and it is swept, like all that is
active, as soon as nobody does: however its owner came to its end.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ..oci.digest import Digest
from ..record import record
from .leases import folder_lock
from .snapshots import Active, Snapshot, Snapshots

_RECORD = "kept.json"
_PARENT = "parent"


@record
class Tree:
    """A tree on its layers: ``snapshot`` is for whoever mounts it, ``about`` was said of it."""

    snapshot: Snapshot
    about: Mapping[str, object]
    lock: int

    @property
    def upper(self) -> Path:
        """What was written."""
        return self.snapshot.path


class Kept:
    """The tree that this process keeps in a store, one at most."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self.tree: Tree | None = None

    def keep(self, active: Active, about: Mapping[str, object]) -> bool:
        """Keep ``active``, which nothing has mounted, in place of what was kept before.

        False when it is too large: it may take as much of the disk as it leaves free, so a step
        that has filled the disk gives it back.
        """
        self.let_go()
        size = _size(active.upper, most=_free(active.path))
        if size is None:
            return False
        said = json.dumps({**about, _PARENT: str(active.parent)})
        with suppress(OSError), folder_lock(active.path.parent, fcntl.LOCK_SH):
            (active.path / _RECORD).write_text(said)
            fcntl.flock(active.lock, fcntl.LOCK_SH)
            self.tree = self._lent(active.path, active.lock)
        return self.tree is not None

    def borrow(self, is_wanted: Callable[[Mapping[str, object]], bool]) -> Tree | None:
        """The newest tree that any process keeps and that is wanted; kept here too from now on."""
        folder = self._snapshots.folder.parent / "active"
        found = []
        with folder_lock(folder, fcntl.LOCK_SH):
            for record_path in folder.glob(f"*/{_RECORD}"):
                with suppress(OSError, ValueError):
                    if is_wanted(json.loads(record_path.read_text())):
                        found.append((record_path.stat().st_mtime_ns, record_path.parent))
            for _, path in sorted(found, reverse=True):
                with suppress(OSError):
                    lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    self.tree = self._lent(path, lock)
                    return self.tree
        return None

    def let_go(self) -> None:
        """Keep nothing any more. Who else holds the tree has it until then."""
        tree, self.tree = self.tree, None
        if tree is not None:
            self._snapshots.forget(tree.snapshot.folder)
            os.close(tree.lock)
            with suppress(OSError):
                self._snapshots.sweep()
                self._snapshots.empty_trash()

    def _lent(self, path: Path, lock: int) -> Tree:
        about = json.loads((path / _RECORD).read_text())
        # A name that follows from no bytes, so it is that of no layer.
        name = Digest.of(f"kept {path}".encode())
        parent = Digest(about[_PARENT])
        snapshot = Snapshot(name, parent, name, 0, str(about.get("title", "")), path / "fs")
        self._snapshots.lend(snapshot)
        return Tree(snapshot, about, lock)


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _size(tree: Path, *, most: int) -> int | None:
    """What a tree takes of the disk; None when that is more than ``most``."""
    total = 0
    try:
        for _, folders, files, fd in os.fwalk(tree):
            for name in (*folders, *files):
                total += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
            if total > most:
                return None
    except (OSError, RecursionError):  # deeper than Python, or open files, can follow
        return None
    return total
