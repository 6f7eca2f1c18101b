"""Leases: what live processes need, so that nothing of it is collected.

A process has a file of its own here, locked while it lives, with a line for each thing it found in
the store. The host kernel lets go of the lock when the process dies, however it dies: a lease has
no time in it, and none is ever stale.

The *gate* is a lock on the folder: shared while a line is written, exclusive from reading the lines
until everything else is out of reach. So a process that wrote its line and then still found the
thing keeps it until it ends. Where nothing can be written (a read-only store), the process holds
the gate's sister `readers` instead, and nothing at all is collected meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .disk import disk_errors

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READERS = "readers"
_MANY = 16


class Leases:
    """The leases of a store; this process's own are kept until it ends or `close`."""

    def __init__(self, folder: Path, *, is_readonly: bool = False) -> None:
        self.folder = folder
        self._file: int | None = None
        self._path: Path | None = None
        self._mine: set[str] = set()
        self._taken: list[Leases] = []
        if is_readonly:
            self._read_only()
        else:
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / _READERS).mkdir(mode=0o700, exist_ok=True)

    def hold(self, name: str) -> bool:
        """Keep ``name`` from now on; False when it was kept before. Look for the thing after it."""
        if name in self._mine:
            return False
        with disk_errors(self.folder), folder_lock(self.folder, fcntl.LOCK_SH):
            if self._file is None:
                self._path = self.folder / os.urandom(8).hex()
                flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            os.write(self._file, f"{name}\n".encode())
        self._mine.add(name)
        return True

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Let nobody write a line meanwhile: what is not leased now can be put out of reach."""
        with folder_lock(self.folder, fcntl.LOCK_EX):
            yield

    def held(self) -> frozenset[str] | None:
        """Everything that is leased, or None for all there is; to be asked with the gate `shut`.

        Files of processes that are gone are removed.
        """
        names: set[str] = set()
        for path in self.folder.iterdir():
            if path.name == _READERS:
                if is_locked(path):
                    return None
            elif is_locked(path):
                with suppress(FileNotFoundError):  # it let go meanwhile
                    names.update(path.read_text().split("\n"))
            else:
                with suppress(OSError):
                    path.unlink()
        return frozenset(names)

    def sweep(self) -> None:
        """Remove what dead processes left, where that is much and nobody is at work on leases."""
        if len(os.listdir(self.folder)) > _MANY:
            with suppress(BlockingIOError), folder_lock(self.folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self.held()

    def take(self, other: Leases) -> None:
        """Let ``other``, of this process too, be closed with this."""
        self._taken.append(other)

    def close(self) -> None:
        """Let go of everything."""
        for other in self._taken:
            other.close()
        if self._file is not None:
            if self._path is not None:
                with suppress(OSError):  # whoever sweeps finds that nobody holds it
                    self._path.unlink()
            os.close(self._file)
            self._file = self._path = None
            self._mine.clear()

    def _read_only(self) -> None:
        try:
            self._file = os.open(self.folder / _READERS, _FOLDER)
        except FileNotFoundError:  # never opened for writing by a version that collects
            self._file = os.open(self.folder.parent, _FOLDER)
        fcntl.flock(self._file, fcntl.LOCK_SH)
        self.hold = lambda name: False  # type: ignore[method-assign]


@contextmanager
def folder_lock(folder: Path, kind: int) -> Iterator[None]:
    """Hold a lock on a folder meanwhile."""
    fd = os.open(folder, _FOLDER)
    try:
        fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


def is_locked(path: Path) -> bool:
    """True while somebody holds a lock on that file or folder."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return True
    finally:
        os.close(fd)
    return False
