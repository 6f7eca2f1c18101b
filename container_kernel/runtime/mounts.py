"""Mounts: what cells may ask to have mounted, read strictly.

``SRC:DST``, ``SRC:DST:rw``, ``volume:NAME:DST`` and ``DST:SIZE`` for a tmpfs. The only options are
``ro`` and ``rw``: everything is mounted nosuid and nodev, and private.
"""

from __future__ import annotations

import posixpath
import re

from ..record import record

_VOLUME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_RESERVED = ("/proc", "/sys", "/dev", "/run")
_WORK = "/work"


@record
class Wish:
    """One mount. ``kind`` is ``path``, ``volume`` or ``tmpfs``; ``source`` a path or a name."""

    kind: str
    source: str
    target: str
    is_writable: bool = False
    size_bytes: int | None = None

    @property
    def text(self) -> str:
        """As it was written, near enough."""
        access = (
            ""
            if self.is_writable == (self.kind != "path")
            else ":rw"
            if self.is_writable
            else ":ro"
        )
        source = f"volume:{self.source}" if self.kind == "volume" else self.source
        return f"{source}:{self.target}{access}" if self.kind != "tmpfs" else self.target


def parse(text: str) -> Wish:
    """What ``--mount text`` asks for.

    Raises:
        ValueError: what it takes instead.
    """
    kind, words = "path", text.split(":")
    if words[0] == "volume" and len(words) > 2:
        kind, words = "volume", words[1:]
    access = "ro" if kind == "path" else "rw"
    if len(words) == 3:
        access = words.pop()
    if len(words) != 2 or not words[0] or access not in ("ro", "rw"):
        raise ValueError("SRC:DST or volume:NAME:DST, and :ro or :rw after it, no other option")
    source, target = words
    if kind == "volume":
        volume(source)
    elif not source.isprintable():
        raise ValueError("a path without control characters")
    return Wish(kind, source, folder(target), access == "rw")


def parse_tmpfs(text: str, size: int | None = None) -> Wish:
    """What ``--tmpfs text`` asks for, its size read by the caller.

    Raises:
        ValueError: what it takes instead.
    """
    return Wish("tmpfs", "tmpfs", folder(text), True, size)


def volume(name: str) -> str:
    """A name that a volume may have.

    Raises:
        ValueError: it may not.
    """
    if not _VOLUME.fullmatch(name):
        raise ValueError("a volume's name of small letters, digits and . _ -")
    return name


def folder(path: str) -> str:
    """A place in the container where something may be mounted.

    Raises:
        ValueError: it is no absolute path, or a place of ours or of the host kernel's.
    """
    is_plain = path.isprintable() and not set(path) & set(",\\ ")
    if not path.startswith("/") or not is_plain or ".." in path.split("/"):
        raise ValueError("a target that is an absolute path without .. , \\ or spaces")
    target = posixpath.normpath(path.replace("//", "/"))
    if target == "/" or any(target == top or target.startswith(f"{top}/") for top in _RESERVED):
        raise ValueError(f"a target outside {', '.join(_RESERVED)}")
    if target == _WORK or target.startswith(f"{_WORK}/"):
        raise ValueError("a target outside /work, which is the notebook's folder on the host")
    return target
