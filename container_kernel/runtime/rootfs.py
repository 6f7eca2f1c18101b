"""Rootfs: the merged file system of one container, mounted and ready to be started in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .. import syscalls
from ..oci.digest import Digest
from ..record import replace
from ..store.shelf import Shelf
from . import overlay
from .host import Host
from .identity import read_file
from .init_layer import InitLayer

_PLAIN = InitLayer()


class Rootfs:
    """An overlay on the layers named ``parent``; its upper is an active snapshot.

    With ``successor_of`` the upper is that one's, beside which this one is mounted, with the
    folder ``touched`` on top of the layers. Both see what is written through either, so nobody
    should be left in one of them; and only one of them is to be discarded.
    """

    def __init__(
        self,
        host: Host,
        store: Shelf,
        parent: Digest | None,
        init: InitLayer = _PLAIN,
        *,
        successor_of: Rootfs | None = None,
        touched: Sequence[Path] = (),
    ) -> None:
        self._store = store
        if successor_of is None:
            self.active = store.snapshots.prepare(parent)
            work = self.active.work
        else:
            self.active = replace(successor_of.active, parent=parent)
            work = self.active.path / f"work-{os.urandom(4).hex()}"
            work.mkdir()
        layers = store.snapshots.chain(parent)
        try:
            self.path = host.new_folder("rootfs")
            overlay.mount(
                store.snapshots.folder,
                [*(layer.path for layer in layers), *touched, init.make(host, store.idmap)],
                self.active.upper,
                work,
                self.path,
                userxattr=store.userxattr,
            )
        except BaseException:
            if successor_of is None:
                store.snapshots.remove(self.active)
            raise
        self._fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._is_mounted = True

    @property
    def fd(self) -> int:
        """The root folder, for `identity` and openat2(2)."""
        return self._fd

    def open(self, path: str, flags: int = os.O_RDONLY) -> int | None:
        """Open a path as a process inside would; None when it is not there."""
        try:
            return syscalls.open_in_root(self._fd, path, flags | os.O_NONBLOCK | os.O_NOCTTY)
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
        self._store.snapshots.remove(self.active)
