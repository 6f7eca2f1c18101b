"""Rootfs: the merged file system of one container, mounted and ready to be started in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .. import syscalls
from ..oci.digest import Digest
from ..oci.idmap import IdMap
from ..record import replace
from ..store.shelf import Shelf
from . import overlay, refusal
from .host import Host
from .identity import read_file
from .init_layer import Below, InitLayer

if TYPE_CHECKING:
    from .lent import Lent

_PLAIN = InitLayer()
_RECAP = syscalls.MS_REMOUNT | syscalls.MS_NODEV


class Rootfs:
    """An overlay on the layers named ``parent``; its upper is an active snapshot.

    With ``successor_of`` the upper is that one's, beside which this one is mounted, with the
    folder ``touched`` on top of the layers. Both see what is written through either, so nobody
    should be left in one of them; and only one of them is to be discarded.

    With ``lent`` ids all in it is theirs, and files are made in it from here `as_root`.

    With ``scratch_bytes`` the upper is a tmpfs of that size: the one cap that every host and user
    has. It can become a layer only by a copy, and is for what is thrown away.
    """

    @refusal.of_the_host
    def __init__(
        self,
        host: Host,
        store: Shelf,
        parent: Digest | None,
        init: InitLayer = _PLAIN,
        *,
        lent: Lent | None = None,
        successor_of: Rootfs | None = None,
        touched: Sequence[Path] = (),
        scratch_bytes: int | None = None,
    ) -> None:
        self._host, self._store, self._lent = host, store, lent
        self._capped: Path | None = None
        if successor_of is None:
            self.active = store.snapshots.prepare(parent)
            self._shown = self.active.path
            work = self.active.work
            if scratch_bytes is not None:
                self._cap(scratch_bytes)
            self._show()
        else:
            self._capped, self._shown = successor_of._capped, successor_of._shown
            self._lent = lent = successor_of._lent
            self.active = replace(successor_of.active, parent=parent)
            work = self.active.path / f"work-{os.urandom(4).hex()}"
            work.mkdir()
        layers = [layer.path for layer in store.snapshots.chain(parent)]
        below = Below(layers, touched, self.idmap, self.owner)
        try:
            self.path = host.new_folder("rootfs")
            overlay.mount(
                store.snapshots.folder,
                [*layers, *touched, init.make(host, below)],
                self._shown / self.active.upper.name,
                self._shown / work.name,
                self.path,
                userxattr=store.userxattr,
                context=host.runtime.labels.files,
                lent=lent,
            )
            self._fd = _opened(self.path)
        except BaseException:
            if successor_of is None:
                self._remove_active()
            raise
        self._is_mounted = True

    @property
    def idmap(self) -> IdMap:
        """How ids of the image are in here."""
        return self._lent.idmap if self._lent else self._store.idmap

    def owner(self, number: int) -> int:
        """Who is in here what ``number`` is in the layers on disk."""
        return self._lent.idmap.to_disk(number) if self._lent else number

    @property
    def as_root(self) -> AbstractContextManager[None]:
        """For as long as this thread makes something in here, which is to be root's."""
        return self._lent.acting() if self._lent else nullcontext()

    @property
    def fd(self) -> int:
        """The root folder, for `identity` and openat2(2)."""
        return self._fd

    def open(self, path: str) -> int | None:
        """Open a path as a process inside would; None when it is not there."""
        try:
            return syscalls.open_in_root(self._fd, path, os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return None

    def read(self, path: str) -> str | None:
        """The text of a regular file, bounded; None when there is none."""
        return read_file(self._fd, path)

    def unmount(self) -> None:
        """Detach the overlay; the active snapshot with what was written stays."""
        if self._is_mounted:
            self._is_mounted = False
            os.close(self._fd)
            overlay.unmount(self.path)
            self.path.rmdir()

    def take_place_of(self, old: Rootfs) -> None:
        """Be where ``old`` was, which is unmounted: a runtime remembers the path."""
        os.close(old._fd)
        old._is_mounted = False
        overlay.unmount(old.path)
        syscalls.mount(str(self.path), str(old.path), flags=syscalls.MS_MOVE)
        self.path.rmdir()
        self.path = old.path

    def discard(self) -> None:
        """Unmount and forget what was written."""
        self.unmount()
        self._remove_active()

    def _cap(self, size: int) -> None:
        """Put a tmpfs of ``size`` bytes over the active snapshot's folder."""
        root, folder = self._store.idmap.to_disk(0), self.active.path
        # A file without content takes none of the size, yet memory.
        data = f"size={size},nr_inodes={max(1024, size // 1024)},mode=700"
        try:
            syscalls.mount("tmpfs", str(folder), "tmpfs", syscalls.MS_NODEV, data)
        except BaseException:
            self._store.snapshots.remove(self.active)
            raise
        self._capped = folder
        self.active.upper.mkdir(mode=0o755)
        self.active.upper.chmod(0o755)
        os.chown(self.active.upper, root, root)
        self.active.work.mkdir()

    def _show(self) -> None:
        """Have the upper with lent ids, where it is in memory: the view of the disk lacks that."""
        if not self._lent:
            return
        in_view = self._lent.view / self.active.path.relative_to(self._store.home)
        if self._capped is not None or not in_view.exists():
            shift, folder = self._lent.userns, self.active.path
            try:
                self._shown = self._host.bind(folder, readonly=False, shift=shift)
            except BaseException:
                self._remove_active()
                raise

    def recap(self, size: int) -> bool:
        """Give the scratch another size; False when it has none."""
        if self._capped is None:
            return False
        syscalls.mount("tmpfs", str(self._capped), flags=_RECAP, data=f"size={size}")
        return True

    @property
    def capped_bytes(self) -> int | None:
        """What is in the scratch, where that has a size."""
        if self._capped is None:
            return None
        found = os.statvfs(self._capped)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _remove_active(self) -> None:
        if self._shown != self.active.path:
            self._host.unbind(self._shown)
        if self._capped is not None:
            overlay.unmount(self._capped)
        self._store.snapshots.remove(self.active)


def _opened(root: Path) -> int:
    try:
        return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        overlay.unmount(root)
        raise
