"""Rootfs: the merged file system of one container, mounted and ready to be started in."""

from __future__ import annotations

import os

from .. import syscalls
from ..oci.digest import Digest
from ..store.store import Store
from . import overlay
from .host import Host
from .identity import read_file
from .init_layer import InitLayer

_PLAIN = InitLayer()


class Rootfs:
    """An overlay on the layers named ``parent``; its upper is an active snapshot."""

    def __init__(
        self,
        host: Host,
        store: Store,
        parent: Digest | None,
        init: InitLayer = _PLAIN,
    ) -> None:
        self._store = store
        lowers = store.snapshots.chain(parent)
        self.active = store.snapshots.prepare(parent)
        try:
            self.path = host.new_folder("rootfs")
            overlay.mount(
                store.snapshots.folder,
                [*(snapshot.path for snapshot in lowers), init.make(host, store.idmap)],
                self.active,
                self.path,
                userxattr=store.userxattr,
            )
        except BaseException:
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

    def discard(self) -> None:
        """Unmount and forget what was written."""
        self.unmount()
        self._store.snapshots.remove(self.active)
