"""View: the files of an image as they lie in its layers, with nothing of ours on top.

For whoever looks at an image instead of running it: what is installed, what a tree holds. It is
the merged file system of the layers; links of the image lead nowhere out of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from .. import syscalls
from ..oci.digest import Digest
from ..store.shelf import Shelf
from . import overlay
from .host import Host
from .identity import read_file

_NOT_FILES = ("proc", "sys", "dev")


class Files:
    """A merged file system by its root folder, which whoever opened it closes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, path: str) -> str | None:
        """The text of a regular file, bounded; None when there is none."""
        return read_file(self.fd, path)

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted; none when it is no folder."""
        try:
            fd = syscalls.open_in_root(self.fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """Every folder, absolute, with the names of those in it; no link is followed.

        Names taken out of the list are not gone into.
        """
        walk = os.fwalk(".", dir_fd=self.fd, follow_symlinks=False)
        for here, names, _, _ in walk:
            names.sort()
            if here == ".":
                names[:] = [name for name in names if name not in _NOT_FILES]
            yield here[1:] or "/", names


class View(Files):
    """The file system named ``chain``, for as long as a ``with`` block takes."""

    def __init__(self, host: Host, store: Shelf, chain: Digest) -> None:
        self._store = store
        layers = store.snapshots.chain(chain)
        self._active = store.snapshots.prepare(chain)
        try:
            self.path = host.new_folder("view")
            overlay.mount(
                store.snapshots.folder,
                [layer.path for layer in layers],
                self._active.upper,
                self._active.work,
                self.path,
                userxattr=store.userxattr,
            )
        except BaseException:
            store.snapshots.remove(self._active)
            raise
        super().__init__(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.fd)
        overlay.unmount(self.path)
        self.path.rmdir()
        self._store.snapshots.remove(self._active)
