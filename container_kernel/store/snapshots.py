"""Snapshots: frozen file systems, one folder per layer, stacked by chain ID.

Life of a snapshot: `prepare` gives an active one, a folder that a step writes into through an
overlay; `commit` freezes it by one rename, or `remove` forgets it. A committed snapshot is never
written again. Its folder holds ``fs`` (the overlay directory) and ``layer.json`` (what it is), and
is complete and on disk before it has its name: what has a name is whole.

    snapshots/<first digits of the chain ID>/{fs,layer.json}
    active/<key>/{fs,work,lock}             lock is held while the owner lives
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StoreError
from ..folders import remove_tree
from ..oci.digest import Digest, extend_chain
from ..oci.idmap import IdMap
from ..record import record
from ..syscalls import syncfs

_SHORT = 12


@record
class Snapshot:
    """A committed layer on top of its parents. ``size`` is the bytes of its tar."""

    chain_id: Digest
    parent: Digest | None
    diff_id: Digest
    size: int
    created_by: str
    path: Path
    """The frozen overlay directory."""


@record(frozen=False)
class Active:
    """A folder being written; ``upper`` and ``work`` are the overlay's."""

    key: str
    parent: Digest | None
    path: Path
    lock: int

    @property
    def upper(self) -> Path:
        """Where changes land: the layer to be."""
        return self.path / "fs"

    @property
    def work(self) -> Path:
        """The overlay's own scratch."""
        return self.path / "work"


class Snapshots:
    """All frozen trees of a store; safe to share between processes."""

    def __init__(self, home: Path, idmap: IdMap) -> None:
        self.folder = home / "snapshots"
        self._active = home / "active"
        self._idmap = idmap
        self._known: dict[Digest, Snapshot] = {}
        for folder in (self.folder, self._active):
            folder.mkdir(mode=0o700, exist_ok=True)

    def get(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot of that name."""
        known = self._known.get(chain_id)
        if known is not None and known.path.is_dir():
            return known
        for length in range(_SHORT, 65):
            folder = self.folder / chain_id.hex[:length]
            found = _read(folder)
            if found is None:
                return None
            if found.chain_id == chain_id:
                self._known[chain_id] = found
                return found
        return None

    def chain(self, chain_id: Digest | None) -> list[Snapshot]:
        """The snapshot and its parents, base first.

        Raises:
            StoreError: one of them is missing.
        """
        stack: list[Snapshot] = []
        while chain_id is not None:
            snapshot = self.get(chain_id)
            if snapshot is None:
                raise StoreError(
                    f"layer {chain_id.short} is not in the store",
                    hint="run the cells that build it again, or load its image again",
                )
            stack.append(snapshot)
            chain_id = snapshot.parent
        return stack[::-1]

    def prepare(self, parent: Digest | None) -> Active:
        """A new active snapshot on ``parent``; it is swept when its owner dies."""
        key = os.urandom(8).hex()
        path = self._active / key
        try:
            with _folder_lock(self._active, fcntl.LOCK_SH):
                path.mkdir(mode=0o700)
                lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
            root = self._idmap.to_disk(0)
            (path / "fs").mkdir()
            os.chown(path / "fs", root, root)
            (path / "fs").chmod(0o755)
            (path / "work").mkdir()
        except OSError as error:
            raise cannot_write(self._active, error) from error
        return Active(key, parent, path, lock)

    def commit(
        self, active: Active, diff_id: Digest, size: int, created_by: str, *, synced: bool = False
    ) -> Snapshot:
        """Freeze ``active``; when this returns it is on disk under its chain ID.

        A second commit of the same chain, by whomever, keeps the first and drops this one.
        ``synced`` says that the files are on disk already.
        """
        chain_id = extend_chain(active.parent, diff_id)
        existing = self.get(chain_id)
        if existing is not None:
            self.remove(active)
            return existing
        try:
            _remove_tree(active.work)
            record = _record(chain_id, active.parent, diff_id, size, created_by)
            (active.path / "layer.json").write_text(json.dumps(record, indent=1))
            if synced:
                _sync(active.path / "layer.json")
                _sync(active.path)
            else:
                _sync_all(active.path)
            snapshot = self._publish(active.path, chain_id)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        os.close(active.lock)
        return snapshot

    def remove(self, active: Active) -> None:
        """Forget an active snapshot and what was written into it."""
        _remove_tree(active.path)
        try:
            os.close(active.lock)
        except OSError:
            pass

    def walk(self) -> list[Snapshot]:
        """Every committed snapshot, in no useful order."""
        found = (_read(folder) for folder in self.folder.iterdir())
        return [snapshot for snapshot in found if snapshot is not None]

    def sweep(self) -> None:
        """Remove active snapshots whose owners are gone."""
        with _folder_lock(self._active, fcntl.LOCK_EX):
            for path in self._active.iterdir():
                if _is_abandoned(path):
                    _remove_tree(path)

    def _publish(self, path: Path, chain_id: Digest) -> Snapshot:
        for length in range(_SHORT, 65):
            target = self.folder / chain_id.hex[:length]
            try:
                path.rename(target)
            except OSError:
                found = _read(target)
                if found is None:
                    raise
                if found.chain_id == chain_id:  # another process was first: same bytes
                    _remove_tree(path)
                    return found
                continue
            _sync(self.folder)
            (target / "lock").unlink(missing_ok=True)
            snapshot = _read(target)
            assert snapshot is not None
            return snapshot
        raise StoreError(f"no free folder for layer {chain_id.short}")


@contextmanager
def _folder_lock(folder: Path, kind: int) -> Iterator[None]:
    """Hold a lock on a folder: nobody is half way through `prepare` while one sweeps."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


def _is_abandoned(path: Path) -> bool:
    """True when nobody holds the lock in ``path``, or there never came to be one."""
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _record(
    chain_id: Digest, parent: Digest | None, diff_id: Digest, size: int, created_by: str
) -> dict[str, object]:
    return {
        "chain_id": str(chain_id),
        "parent": str(parent) if parent else None,
        "diff_id": str(diff_id),
        "size": size,
        "created_by": created_by,
    }


def _read(folder: Path) -> Snapshot | None:
    try:
        record = json.loads((folder / "layer.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder}/layer.json cannot be read: {error}",
            hint=f"move {folder} away and run the cells that build it again",
        ) from error
    parent = record["parent"]
    return Snapshot(
        Digest(record["chain_id"]),
        Digest(parent) if parent else None,
        Digest(record["diff_id"]),
        record["size"],
        record["created_by"],
        folder / "fs",
    )


def _remove_tree(path: Path) -> None:
    """Remove a folder and all below, as far as it can be removed."""
    with suppress(RecursionError):
        remove_tree(path)
    if path.exists():  # a step may make folders deeper than Python, or open files, can follow
        subprocess.run(["rm", "-rf", "--", path], check=False, stderr=subprocess.DEVNULL)


def cannot_write(folder: Path, error: OSError) -> StoreError:
    """What the user is told when the disk refused."""
    return StoreError(
        f"cannot write {error.filename or folder}: {error.strerror}",
        hint="free space there, or set CONTAINER_KERNEL_HOME to a folder you can write",
    )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Make whatever the disk refuses meanwhile a `StoreError` about ``folder``."""
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error) from error


def _sync_all(path: Path) -> None:
    """Have the whole file system on disk that ``path`` lies on: one wait, however many files."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
