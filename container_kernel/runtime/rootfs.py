"""Rootfs: the merged file system of one container, mounted and ready to be started in.

On top of the image's layers lies a read-only *init layer* of our own with real folders for
``/dev``, ``/proc``, ``/sys`` and every mount point, so that links an image put there are covered
before an OCI runtime looks at them (CVE-2026-41579 and its kin), and no mount point is ever
frozen into a layer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import syscalls
from ..oci.digest import Digest
from ..store.store import Store
from . import overlay
from .host import Host
from .identity import read_file

_FOLDERS = ("/dev", "/proc", "/sys", "/run", "/etc")
_FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")


class Rootfs:
    """An overlay on the layers named ``parent``, with its upper as an active snapshot.

    ``folders`` and ``files`` are mount points to cover; ``texts`` are files of the init layer
    with their content; ``homes`` are folders that belong to an image uid.
    """

    def __init__(
        self,
        host: Host,
        store: Store,
        parent: Digest | None,
        *,
        folders: Iterable[str] = (),
        files: Iterable[str] = (),
        texts: Mapping[str, str] | None = None,
        homes: Mapping[str, int] | None = None,
    ) -> None:
        self._store = store
        lowers = store.snapshots.chain(parent)
        self.active = store.snapshots.prepare(parent)
        try:
            self._fill_init([*_FOLDERS, *folders], [*_FILES, *files], texts or {}, homes or {})
            self.path = host.new_folder("rootfs")
            overlay.mount(
                store.snapshots.folder,
                lowers,
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

    def _fill_init(
        self,
        folders: Iterable[str],
        files: Iterable[str],
        texts: Mapping[str, str],
        homes: Mapping[str, int],
    ) -> None:
        root = self._store.idmap.to_disk(0)
        for path in folders:
            self._make_folder(path, root)
        for path, text in {**dict.fromkeys(files, ""), **texts}.items():
            self._make_folder(os.path.dirname(path), root)
            target = self._inside(path)
            target.write_text(text)
            target.chmod(0o644)
            os.chown(target, root, root)
        for path, uid in homes.items():
            owner = self._store.idmap.to_disk(uid)
            self._make_folder(path, root)
            os.chown(self._inside(path), owner, owner)

    def _make_folder(self, path: str, owner: int) -> None:
        target = self._inside(path)
        missing = [p for p in (target, *target.parents) if not p.exists()]
        for folder in reversed(missing):
            folder.mkdir()
            folder.chmod(0o755)
            os.chown(folder, owner, owner)

    def _inside(self, path: str) -> Path:
        inside = os.path.normpath("/" + path).lstrip("/")
        return self.active.init / inside
