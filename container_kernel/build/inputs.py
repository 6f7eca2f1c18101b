"""Inputs: files from outside that become part of a layer, named by their content.

``%copy`` takes from the notebook's folder (or another stage), ``%download`` from a URL, ``-r``
reads requirement files. Sources are opened so that no link leads out of the folder; what is
hashed for the cache key is hashed again as it is copied.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Protocol

from .. import syscalls
from ..errors import CellError, InputNotFound
from ..oci.digest import Digest
from ..oci.idmap import IdMap
from ..record import record

_CHUNK = 1 << 20


@record
class Entry:
    """One file, folder or link below a source; ``path`` is relative to it, '' for itself."""

    path: str
    mode: int
    link: str | None = None


class Folder:
    """A folder that sources are taken from, opened once; nothing outside it can be reached."""

    def __init__(self, path: Path, what: str) -> None:
        self._what = what
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._is_image = what != _NOTEBOOK

    @classmethod
    def of_notebook(cls, path: Path) -> Folder:
        """The notebook's own folder."""
        return cls(path, _NOTEBOOK)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def check(self, source: str) -> str:
        """``source`` as a relative path.

        Raises:
            InputNotFound: it is not there, or outside.
        """
        if not self._is_image and source.startswith(("/", "~")):
            raise InputNotFound(
                f"{source!r} is outside {self._what}",
                hint="copy the file next to the notebook and name it by a relative path",
            )
        parts = os.path.normpath(source).split("/")
        if not self._is_image and ".." in parts:
            raise InputNotFound(
                f"{source!r} is outside {self._what}",
                hint="copy the file next to the notebook and name it by a relative path",
            )
        try:
            os.close(self._open(source, os.O_PATH))
        except OSError as error:
            raise InputNotFound(
                f"{source!r} is not in {self._what}: {error.strerror}",
                hint=self._nearby(source),
            ) from error
        return source

    def walk(self, source: str) -> Iterator[Entry]:
        """The source itself and everything below it, sorted; links are not followed."""
        with _there(source):
            fd = self._open(source, os.O_PATH)
        try:
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
        yield Entry("", mode)
        if stat.S_ISDIR(mode):
            yield from self._below(source, "")

    def open(self, source: str, entry: Entry) -> BufferedReader:
        """A regular file's bytes.

        Raises:
            IsADirectoryError: it is a folder.
        """
        path = os.path.join(source, entry.path) if entry.path else source
        fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return os.fdopen(fd, "rb")

    def digest(self, sources: tuple[str, ...]) -> Digest:
        """Name the content of ``sources``: paths, kinds, permissions, bytes; not times."""
        named = Naming()
        for source in sources:
            named.source(source)
            for entry in self.walk(source):
                named.entry(entry)
                if stat.S_ISREG(entry.mode):
                    with _there(entry.path), self.open(source, entry) as file:
                        named.bytes(hashlib.file_digest(file, "sha256"))
        return named.digest

    def read(self, source: str) -> bytes:
        """The bytes of one regular file."""
        self.check(source)
        with self.open(source, Entry("", 0)) as file:
            return file.read()

    def _below(self, source: str, prefix: str) -> Iterator[Entry]:
        for entry in self._listed(os.path.join(source, prefix) if prefix else source):
            path = f"{prefix}/{entry.path}" if prefix else entry.path
            yield Entry(path, entry.mode, entry.link)
            if stat.S_ISDIR(entry.mode):
                yield from self._below(source, path)

    def _listed(self, path: str) -> list[Entry]:
        """What of a folder can be in a layer, by name."""
        found = []
        with _there(path):
            fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for name in sorted(os.listdir(fd), key=os.fsencode):
                    mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                    if stat.S_ISLNK(mode):
                        found.append(Entry(name, mode, os.readlink(name, dir_fd=fd)))
                    elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                        found.append(Entry(name, mode))
            finally:
                os.close(fd)
        return found

    def _open(self, path: str, flags: int) -> int:
        return syscalls.open_in_root(self._fd, path, flags)

    def _nearby(self, source: str) -> str:
        parent = os.path.dirname(source) or "."
        try:
            fd = self._open(parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return "check the path; it is relative to the notebook's folder"
        try:
            names = sorted(os.listdir(fd))[:8]
        finally:
            os.close(fd)
        place = self._what if parent == "." else parent
        return f"{place} holds: {', '.join(names) or 'nothing'}"


@contextmanager
def _there(path: str) -> Iterator[None]:
    """Whatever goes away while it is read is an error of whoever took it away."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputNotFound(
            f"{path} changed while it was read: {error.strerror}",
            hint="run the cell again when nothing writes there",
        ) from error


_NOTEBOOK = "the notebook's folder"


class Naming:
    """Names content by what is read of it, in order."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def source(self, source: str) -> None:
        """What follows is below this."""
        self._whole.update(b"source %s\0" % os.fsencode(os.path.basename(source.rstrip("/"))))

    def entry(self, entry: Entry) -> None:
        """One file, folder or link."""
        head = f"{entry.path}\0{entry.mode:o}\0{entry.link or ''}\0"
        self._whole.update(head.encode(errors="surrogateescape"))

    def bytes(self, content: _Hash) -> None:
        """The bytes of a file."""
        self._whole.update(content.digest())

    @property
    def digest(self) -> Digest:
        """The name of all of it."""
        return Digest("sha256:" + self._whole.hexdigest())


class _Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def digest(self) -> bytes: ...


class Placer:
    """Writes files into a root file system as its root user, never through a link out of it."""

    def __init__(self, root_fd: int, idmap: IdMap) -> None:
        self._root_fd = root_fd
        self._owner = idmap.to_disk(0)

    def copy(self, folder: Folder, sources: tuple[str, ...], destination: str) -> Digest:
        """Copy as Docker's COPY does: a folder's *content* goes to the destination; several
        sources, or a destination that ends in ``/`` or is a folder, mean "into it".

        Returns what `Folder.digest` names so, of the bytes that were copied: what was there before
        and after may be something else.
        """
        named = Naming()
        into = len(sources) > 1 or destination.endswith("/") or self._is_folder(destination)
        for source in sources:
            named.source(source)
            entries = list(folder.walk(source))
            is_folder = stat.S_ISDIR(entries[0].mode)
            name = os.path.basename(os.path.normpath(source))
            target = destination if is_folder or not into else os.path.join(destination, name)
            for entry in entries:
                named.entry(entry)
                content = self._place(folder, source, entry, os.path.join(target, entry.path))
                if content is not None:
                    named.bytes(content)
        return named.digest

    def write(
        self,
        source: IO[bytes],
        destination: str,
        mode: int = 0o644,
        content: _Hash | None = None,
    ) -> None:
        """Write one file, with the folders above it; ``content`` is told its bytes."""
        parent, name = os.path.split(destination.rstrip("/"))
        fd = self._folder(parent)
        try:
            _unlink(fd, name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=fd), "wb") as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
                    if content is not None:
                        content.update(chunk)
                os.fchown(file.fileno(), self._owner, self._owner)
                os.fchmod(file.fileno(), mode)
        finally:
            os.close(fd)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it, where they are missing."""
        os.close(self._folder(path))

    def is_folder(self, path: str) -> bool:
        """True when there is a folder of this name."""
        return self._is_folder(path)

    def _place(self, folder: Folder, source: str, entry: Entry, target: str) -> _Hash | None:
        mode = stat.S_IMODE(entry.mode) & 0o777
        if stat.S_ISDIR(entry.mode):
            os.close(self._folder(target, mode if entry.path else None))
        elif entry.link is not None:
            parent, name = os.path.split(target)
            fd = self._folder(parent)
            try:
                _unlink(fd, name)
                os.symlink(entry.link, name, dir_fd=fd)
                os.chown(name, self._owner, self._owner, dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
        else:
            content = hashlib.sha256()
            with _there(entry.path):
                file = folder.open(source, entry)
            with file:
                self.write(file, target, mode, content)
            return content
        return None

    def _folder(self, path: str, mode: int | None = None) -> int:
        """Open a folder, made with its parents where missing; links are followed inside."""
        path = os.path.normpath("/" + path)
        try:
            return syscalls.open_in_root(self._root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            raise CellError(f"{path} in the image is not a folder") from error
        parent = self._folder(os.path.dirname(path))
        try:
            name = os.path.basename(path)
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
            except FileExistsError as error:
                raise CellError(f"{path} in the image is a link that leads nowhere") from error
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=parent)
            os.fchown(fd, self._owner, self._owner)
            os.fchmod(fd, 0o755 if mode is None else mode)
            return fd
        finally:
            os.close(parent)

    def _is_folder(self, path: str) -> bool:
        try:
            flags = os.O_PATH | os.O_DIRECTORY
            os.close(syscalls.open_in_root(self._root_fd, os.path.normpath("/" + path), flags))
        except OSError:
            return False
        return True


def _unlink(fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError as error:
        raise CellError(f"a folder called {name!r} is in the way") from error
