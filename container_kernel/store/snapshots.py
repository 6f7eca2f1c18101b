"""Snapshots: frozen file systems, one folder per layer, stacked by chain ID.

Life of a snapshot: `prepare` gives an active one, a folder that a step writes into through an
overlay; `commit` freezes it by one rename, or `remove` forgets it. A committed snapshot is never
written again. Its folder holds ``fs`` (the overlay directory) and ``layer.json`` (what it is), and
is complete and on disk before it has its name: what has a name is whole.

    snapshots/<first digits of the chain ID>/{fs,layer.json,…}    see `layer`
    active/<key>/{fs,work,lock}             lock is held while the owner lives
    trash/<anything>                        was put out of reach by a rename, is being removed

A layer that `get` or `commit` returned stays, with its parents, while this process lives: it is
leased. On a file system that cannot be written, active snapshots lie in memory: a tmpfs over
``active/``, in this process's own mount namespace.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .. import syscalls
from ..errors import StoreError
from ..folders import remove_tree
from ..oci.digest import Digest, extend_chain
from ..oci.idmap import IdMap
from ..record import record
from . import layer
from .aside import set_aside
from .disk import cannot_write, disk_errors
from .layer import Snapshot as Snapshot
from .leases import Leases, folder_lock

if TYPE_CHECKING:
    from .trees import Examine

_SHORT = 12


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

    def __init__(self, home: Path, idmap: IdMap, *, userxattr: bool = False) -> None:
        self.folder = home / "snapshots"
        self.trash = home / "trash"
        self._active = home / "active"
        self._idmap = idmap
        self._userxattr = userxattr
        self._known: dict[Digest, Snapshot] = {}
        self._trusted: set[Digest] = set()
        self.examine_imported: Examine = lambda snapshot: None
        self.leases = Leases(home / "leases", is_readonly=_is_readonly(home))
        if _is_readonly(home):
            self._write_in_memory()
            return
        for folder in (self.folder, self._active, self.trash):
            folder.mkdir(mode=0o700, exist_ok=True)

    def _write_in_memory(self) -> None:
        with suppress(OSError):  # then `prepare` says that it cannot write
            if _is_readonly(self._active):  # else this process did it already
                syscalls.mount("tmpfs", str(self._active), "tmpfs", syscalls.MS_NODEV, "mode=700")

    def get(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot of that name, which then stays while this process lives."""
        is_new = self.leases.hold(lease(chain_id))
        found = self._find(chain_id)
        if found is not None and is_new:
            with suppress(OSError):
                os.utime(found.folder)  # when it was used last
        return found

    def _find(self, chain_id: Digest) -> Snapshot | None:
        known = self._known.get(chain_id)
        if known is not None and known.path.is_dir():
            return known
        for length in range(_SHORT, 65):
            found = _read(self.folder / chain_id.hex[:length])
            if found is None:
                return None
            if found.chain_id == chain_id:
                self._known[chain_id] = found
                return found
        return None

    def lend(self, snapshot: Snapshot) -> None:
        """Let a tree that lies elsewhere be a snapshot here, for as long as this object lives."""
        self._known[snapshot.chain_id] = snapshot

    def chain(self, chain_id: Digest | None) -> list[Snapshot]:
        """The snapshot and its parents, base first.

        Raises:
            StoreError: one of them is missing.
        """
        stack: list[Snapshot] = []
        while chain_id is not None:
            snapshot = self._find(chain_id) if stack else self.get(chain_id)
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
            with folder_lock(self._active, fcntl.LOCK_SH):
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
        self,
        active: Active,
        diff_id: Digest,
        size: int,
        created_by: str,
        *,
        headers: bytes | None = None,
        synced: bool = False,
    ) -> Snapshot:
        """Freeze ``active``; when this returns it is on disk under its chain ID.

        A second commit of the same chain, by whomever, keeps the first and drops this one.
        ``headers`` are those of the layer's tar. ``synced`` says that the files are on disk
        already. Nothing is frozen on top of a layer that was changed; each is looked at once in a
        process.

        Raises:
            StoreError: a layer below was changed, or the disk refuses; nothing is frozen.
        """
        chain_id = extend_chain(active.parent, diff_id)
        self.leases.hold(lease(chain_id))
        existing = self.get(chain_id)
        if existing is not None:
            with disk_errors(self.folder):  # whoever renamed it may not have come to that
                _sync(self.folder)
            self.remove(active)
            return existing
        with disk_errors(self.folder):
            self._check_below(active.parent)
        try:
            _remove_tree(active.work)
            made = Snapshot(chain_id, active.parent, diff_id, size, created_by, active.upper)
            layer.write(active.path, made, headers)
            if synced:
                for name in (layer.RECORD, *([layer.HEADERS] if headers is not None else [])):
                    _sync(active.path / name)
                _sync(active.path)
            else:
                _sync_all(active.path)
            snapshot = self._publish(active.path, chain_id)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        os.close(active.lock)
        self._trusted.add(chain_id)
        return snapshot

    def _check_below(self, parent: Digest | None) -> None:
        for snapshot in self.chain(parent):
            if snapshot.chain_id not in self._trusted:
                if layer.is_touched(snapshot):
                    from . import trees  # only for those whose layers were touched

                    trees.check_touched(
                        snapshot,
                        self.examine_imported,
                        idmap=self._idmap,
                        userxattr=self._userxattr,
                    )
                self._trusted.add(snapshot.chain_id)

    def remove(self, active: Active) -> None:
        """Forget an active snapshot and what was written into it."""
        try:
            _remove_tree(active.path)
        finally:
            with suppress(OSError):
                os.close(active.lock)

    def walk(self) -> list[Snapshot]:
        """Every committed snapshot, in no useful order; damaged ones are passed over."""
        return [*self.by_folder().values()]

    def by_folder(self, known: Mapping[str, Snapshot] = {}) -> dict[str, Snapshot]:
        """The same by the names of their folders; those that are ``known`` are not read again."""
        names = os.listdir(self.folder)
        found = ((name, known.get(name) or _read(self.folder / name)) for name in names)
        return {name: snapshot for name, snapshot in found if snapshot is not None}

    def folders(self) -> list[Path]:
        """Whatever lies where committed snapshots lie."""
        return list(self.folder.iterdir())

    def forget(self, folder: Path) -> None:
        """Do not answer for what lies in ``folder`` any more: it is about to be moved away."""
        for chain_id, known in [*self._known.items()]:
            if known.folder == folder:
                del self._known[chain_id]

    def sweep(self) -> None:
        """Put active snapshots whose owners are gone out of reach."""
        with folder_lock(self._active, fcntl.LOCK_EX):
            for path in self._active.iterdir():
                if _is_abandoned(path):
                    self.throw_away(path)

    def empty_trash(self) -> None:
        """Remove what was put out of reach. Several may do it at once."""
        with suppress(OSError):  # the next one goes on
            for path in self.trash.iterdir():
                _remove_tree(path)

    def throw_away(self, path: Path) -> Path | None:
        """Put a file or folder of the store out of reach, by one rename; where it is then."""
        with suppress(FileNotFoundError):
            return path.rename(self.trash / f"{path.name}-{os.urandom(4).hex()}")
        return None

    def _publish(self, path: Path, chain_id: Digest) -> Snapshot:
        for length in range(_SHORT, 65):
            target = self.folder / chain_id.hex[:length]
            if not self._take_name(path, target):
                found = _read(target)
                if found is None or found.chain_id != chain_id:
                    continue
                _sync(self.folder)  # another process was first: same bytes
                _remove_tree(path)
                return found
            try:
                _sync(self.folder)
            except OSError:  # then it may or may not be there tomorrow: nobody is to find it
                self.throw_away(target)
                raise
            (target / "lock").unlink(missing_ok=True)
            snapshot = _read(target)
            assert snapshot is not None
            return snapshot
        raise StoreError(f"no free folder for layer {chain_id.short}")

    def _take_name(self, path: Path, target: Path) -> bool:
        """Rename; False when a layer has that name already. What is damaged there makes room."""
        try:
            path.rename(target)
        except OSError:
            if _read(target) is not None:
                return False
            if not target.exists():
                raise
            set_aside(target, self.folder.parent)
            path.rename(target)
        return True


def _read(folder: Path) -> Snapshot | None:
    """The layer in ``folder``; None when there is none that can be used."""
    with suppress(StoreError):
        found = layer.read(folder)
        if found is not None and found.is_consistent and found.path.is_dir():
            return found
    return None


def _is_readonly(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def lease(chain_id: Digest) -> str:
    """What a lease calls the layer."""
    return f"layer {chain_id}"


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


def _remove_tree(path: Path) -> None:
    """Remove a file, or a folder and all below, as far as it can be removed."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    remove_tree(path)


def _sync_all(path: Path) -> None:
    """Have the whole file system on disk that ``path`` lies on: one wait, however many files."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
