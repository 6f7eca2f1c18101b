"""Archives: the packages in a download cache, where every step that uses it can write.

So a step can put there what it likes, links and FIFOs too. None is followed or waited for, and what
a package is called means nothing before its bytes were hashed.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from .. import syscalls

_NAME = "archives"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Archives:
    """The folder of packages in the cache ``downloads``, opened once."""

    def __init__(self, downloads: Path) -> None:
        cache = os.open(downloads, _FOLDER)
        try:
            self._fd = _opened(cache)
        finally:
            os.close(cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def put(self, file: Path) -> None:
        """Move a file of ours there, in place of what has its name."""
        os.rename(file, file.name, dst_dir_fd=self._fd)

    def link(self, name: str, place: Path) -> None:
        """Give the package another name.

        Raises:
            FileNotFoundError: it is not there.
            FileExistsError: the other name is somebody's.
        """
        os.link(_plain(name), place, src_dir_fd=self._fd, follow_symlinks=False)

    def take(self, name: str, kept: Path) -> None:
        """Have the file ``kept`` under this name too."""
        os.link(kept, _plain(name), dst_dir_fd=self._fd, follow_symlinks=False)

    def remove(self, name: str) -> None:
        """Take away what has this name, if anything has."""
        with suppress(FileNotFoundError):
            os.unlink(_plain(name), dir_fd=self._fd)

    def has(self, name: str, digest: str) -> bool:
        """Whether the package is there and has the bytes of that digest, in hexadecimal."""
        return has_digest(_plain(name), digest, self._fd)


def has_digest(path: Path | str, digest: str, folder: int | None = None) -> bool:
    """Whether a regular file is there and has the bytes of that digest, in hexadecimal."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = syscalls.regular(os.open(path, flags, dir_fd=folder))
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        algorithm = "sha512" if len(digest) == 128 else "sha256"
        return hashlib.file_digest(file, algorithm).hexdigest() == digest


def _opened(cache: int) -> int:
    try:
        return os.open(_NAME, _FOLDER, dir_fd=cache)
    except FileNotFoundError:
        pass
    except NotADirectoryError:  # a link of a step's too
        os.unlink(_NAME, dir_fd=cache)
    with suppress(FileExistsError):
        os.mkdir(_NAME, 0o755, dir_fd=cache)
    return os.open(_NAME, _FOLDER, dir_fd=cache)


def _plain(name: str) -> str:
    if "/" in name:
        raise ValueError(f"{name!r} is no file's name")
    return name
