"""Source: a folder or an archive that images are read from, as members by name.

Nothing of it is trusted, and it may lie on a path others can write to: only plain files that are
really there are opened, never what a link, a FIFO or a device stands for.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ..errors import ImageError
from ..oci import tar_header as tar
from ..oci.tar_reader import TarReader
from .compression import NONE, Decompressed

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAX_MEMBERS = 200_000


class Source(Protocol):
    """Where members are read from."""

    def has(self, name: str) -> bool:
        """True when there is a plain file of that name."""

    def open(self, name: str) -> BinaryIO:
        """The member's bytes; the caller closes it.

        Raises:
            ImageError: there is no plain file of that name.
        """


@contextmanager
def open_source(path: Path, scratch: Path) -> Iterator[Source]:
    """The images in the folder or archive ``path``; ``scratch`` is for big temporary files.

    Raises:
        ImageError: it cannot be read, or is no folder and no tar.
    """
    try:
        if path.is_dir():
            yield Folder(path)
            return
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageError(f"{path} is no file and no folder")
        with _plain(file, scratch) as whole:
            yield Archive(whole)


class Folder:
    """A folder, such as an OCI layout."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        """True when there is a plain file of that name."""
        try:
            self.open(name).close()
        except ImageError:
            return False
        return True

    def open(self, name: str) -> BinaryIO:
        """The member's bytes."""
        here = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in name.split("/"):
                below = os.open(part, _OPEN, dir_fd=here)
                os.close(here)
                here = below
            if not stat.S_ISREG(os.fstat(here).st_mode):
                raise ImageError(f"{name} is not a plain file")
            return os.fdopen(os.dup(here), "rb")
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ImageError(f"{name} is not a plain file") from None
            raise ImageError(f"{name} cannot be read: {error.strerror}") from error
        finally:
            os.close(here)


class Archive:
    """A tar. Its table of contents is read once; members are read where they lie."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        reader = TarReader(file, partial(_skip, file))
        for entry in reader:
            name = posixpath.normpath(os.fsdecode(entry.path))
            if entry.kind == tar.FILE:
                if name in self._members or name in links:
                    raise ImageError(f"the archive has two members called {name!r}")
                self._members[name] = reader.position, entry.size
            elif entry.kind in (tar.SYMLINK, tar.HARD_LINK):
                links[name] = _target(name, os.fsdecode(entry.link), entry.kind)
            if len(self._members) + len(links) > _MAX_MEMBERS:
                raise ImageError(f"the archive has more than {_MAX_MEMBERS} members")
        # `docker save` once wrote a layer used twice as a link to the other one.
        for name, target in links.items():
            if name not in self._members and target in self._members:
                self._members[name] = self._members[target]

    @property
    def names(self) -> set[str]:
        """All plain files in it."""
        return set(self._members)

    def has(self, name: str) -> bool:
        """True when there is a plain file of that name."""
        return name in self._members

    def open(self, name: str) -> BinaryIO:
        """The member's bytes."""
        place = self._members.get(posixpath.normpath(name))
        if place is None:
            raise ImageError(f"the archive has no member {name!r}")
        return io.BufferedReader(_Window(self._file, *place))


def _target(name: str, link: str, kind: bytes) -> str:
    folder = posixpath.dirname(name) if kind == tar.SYMLINK else ""
    return posixpath.normpath(posixpath.join(folder, link))


def _skip(file: BinaryIO, size: int) -> int:
    start = file.tell()
    end = min(start + size, os.fstat(file.fileno()).st_size)
    return file.seek(end) - start


class _Window(io.RawIOBase):
    """Part of a file, with a position of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._fd = file.fileno()
        self._at = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        room = memoryview(buffer)[: self._end - self._at]
        count = os.preadv(self._fd, [room], self._at) if room else 0
        self._at += count
        return count


@contextmanager
def _plain(file: BinaryIO, scratch: Path) -> Iterator[BinaryIO]:
    """``file`` itself, or a temporary file with its decompressed bytes."""
    stream = Decompressed(file.read)
    if stream.compression == NONE:
        file.seek(0)
        yield file
        return
    with tempfile.TemporaryFile(dir=scratch) as whole:
        while chunk := stream.read(1 << 20):
            whole.write(chunk)
        whole.seek(0)
        yield whole
