"""Leaks: secrets that a step wrote where they would stay: into its layer, or into a cache.

A layer is looked through as it would be frozen, header by header and file by file: names, targets
of links and extended attributes can hold a secret too.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import StepFailed
from ..folders import walk
from ..oci.changeset import tree_digest
from ..oci.tar_header import BLOCK
from ..oci.tar_writer import TarHasher
from ..store.store import Store
from .secrets import FOLDER

_LEAST_BYTES, _LEAST_OF_LINES = 4, 12
_AT_ONCE = 1 << 20
_FRAME = re.compile(rb"-----.*-----")
"""The first and last line of a key, which every key has."""
_NAME_BYTES = 100  # of a tar's header


class Needles:
    """What is looked for: each secret as a whole, and every longer line of it."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._found = {part: name for name, value in values.items() for part in _parts(value)}
        self._longest = max(map(len, self._found), default=0)

    def in_bytes(self, data: bytes) -> str | None:
        """The name of a secret in there."""
        return next((name for part, name in self._found.items() if part in data), None)

    def in_file(self, fd: int) -> str | None:
        """The same of what is left to read of a file."""
        before = b""
        while data := os.read(fd, _AT_ONCE):
            window = before + data
            if found := self.in_bytes(window):
                return found
            before = window[-self._longest :]
        return None


def _parts(value: bytes) -> Iterable[bytes]:
    whole = value.strip()
    if len(whole) >= _LEAST_BYTES:
        yield whole
    lines = (line.strip() for line in whole.splitlines())
    yield from (one for one in lines if len(one) >= _LEAST_OF_LINES and not _FRAME.fullmatch(one))


class _Scanner(TarHasher):
    """Looks at what would be hashed."""

    def __init__(self, needles: Needles) -> None:
        super().__init__()
        self._needles = needles
        self._entry = ""

    def write(self, data: bytes) -> None:
        """An entry's header, with its name and all that does not fit there."""
        self._entry = data[-BLOCK:][:_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        self._refuse(self._needles.in_bytes(data), "a name, a link or an attribute of a file")

    def write_content(self, fd: int, size: int) -> None:
        """A file."""
        self._refuse(self._needles.in_file(fd), f"/{self._entry}")

    def _refuse(self, secret: str | None, place: str) -> None:
        if secret:
            raise StepFailed(
                f"the step wrote the secret {secret!r} to {place}",
                exit_code=None,
                hint="nothing was frozen; remove the file at the end of the cell, or read "
                f"{FOLDER}/{secret} in place of a copy",
            )


def check_layer(upper: Path, values: Mapping[str, bytes], store: Store) -> None:
    """That no secret is in what is about to be frozen.

    Raises:
        StepFailed: one is.
    """
    scanner = _Scanner(Needles(values))
    tree_digest(upper, idmap=store.idmap, userxattr=store.userxattr, hasher=scanner)


def clean_caches(caches: Mapping[str, Path], values: Mapping[str, bytes], since_ns: int) -> None:
    """Remove what holds a secret of the files in caches that were changed since then.

    Raises:
        StepFailed: there was such a file.
    """
    needles = Needles(values)
    for target, folder in caches.items():
        for here, _, names in walk(folder):
            for path in (os.path.join(here, name) for name in names):
                if secret := _held(path, needles, since_ns):
                    os.unlink(path)
                    raise StepFailed(
                        f"the step wrote the secret {secret!r} to its cache {target}",
                        exit_code=None,
                        hint="nothing was frozen and the file is removed; keep secrets out of it",
                    )


def _held(path: str, needles: Needles, since_ns: int) -> str | None:
    with suppress(OSError):
        info = os.lstat(path)
        if info.st_ctime_ns < since_ns:
            return None
        if found := needles.in_bytes(os.fsencode(os.path.basename(path))):
            return found
        if stat.S_ISLNK(info.st_mode):
            return needles.in_bytes(os.fsencode(os.readlink(path)))
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return needles.in_file(fd) if stat.S_ISREG(info.st_mode) else None
        finally:
            os.close(fd)
    return None
