"""Difference: which files two trees have not in common, and what about them.

What is compared is what a layer's tar says: two trees without a difference have one digest, whoever
owns them on disk. Content is compared by its digest; only two lists of names are held in memory.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..record import record
from . import tar_header as tar
from .changeset import encode
from .idmap import IdMap
from .tar_reader import Entry, TarReader

_KINDS = {
    tar.FILE: "file",
    tar.HARD_LINK: "hard link",
    tar.SYMLINK: "link",
    tar.CHAR_DEVICE: "device",
    tar.BLOCK_DEVICE: "device",
    tar.DIRECTORY: "folder",
    tar.FIFO: "pipe",
}


@record
class Tree:
    """A frozen tree, and how ids and overlay marks are written in it."""

    path: Path
    idmap: IdMap
    userxattr: bool


@record
class Difference:
    """One path and what differs, each aspect with its value before and after.

    Aspects are ``content``, ``kind``, ``mode``, ``owner``, ``time``, ``link`` and ``xattr``; a path
    that only one of the trees has is ``added`` or ``removed`` alone.
    """

    path: str
    aspects: dict[str, tuple[str, str]]


@record
class _Seen:
    entry: Entry
    digest: str


def differences(before: Tree, after: Tree) -> list[Difference]:
    """What must change in ``before`` to make it ``after``, sorted by path."""
    old, new = (dict(_listing(tree)) for tree in (before, after))
    found = []
    for path in sorted(old.keys() | new.keys()):
        aspects = _aspects(old.get(path), new.get(path))
        if aspects:
            found.append(Difference(os.fsdecode(path).rstrip("/"), aspects))
    return found


def _aspects(old: _Seen | None, new: _Seen | None) -> dict[str, tuple[str, str]]:
    if old is None or new is None:
        seen = old or new
        assert seen is not None
        kind = _KINDS[seen.entry.kind]
        return {"added": ("", kind)} if old is None else {"removed": (kind, "")}
    one, other = _described(old), _described(new)
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}


def _described(seen: _Seen) -> dict[str, str]:
    entry = seen.entry
    return {
        "kind": _KINDS[entry.kind],
        "content": seen.digest,
        "mode": f"{entry.mode:04o}",
        "owner": f"{entry.uid}:{entry.gid}",
        "time": str(entry.mtime_ns // 1_000_000_000),
        "link": os.fsdecode(entry.link),
        "xattr": " ".join(f"{os.fsdecode(k)}={v.hex()}" for k, v in sorted(entry.xattrs.items())),
    }


def _listing(tree: Tree) -> Iterator[tuple[bytes, _Seen]]:
    """Every entry of the tree's tar, which goes through a pipe and is written nowhere."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    failed: list[BaseException] = []
    thread = threading.Thread(target=_send, args=(tree, writing, failed), name="listing")
    thread.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            reader = TarReader(stream)
            for entry in reader:
                yield entry.path, _Seen(entry, _digest(reader, entry))
    finally:
        thread.join()
    if failed:
        raise failed[0]


def _digest(reader: TarReader, entry: Entry) -> str:
    if entry.kind != tar.FILE:
        return ""
    sha256 = hashlib.sha256()
    for chunk in reader.content():
        sha256.update(chunk)
    return "sha256:" + sha256.hexdigest()


def _send(tree: Tree, fd: int, failed: list[BaseException]) -> None:
    try:
        with os.fdopen(fd, "wb") as pipe:
            _encode(tree, pipe)
    except BaseException as error:  # told by whoever reads
        failed.append(error)


def _encode(tree: Tree, pipe: BinaryIO) -> None:
    encode(tree.path, pipe.write, idmap=tree.idmap, userxattr=tree.userxattr)
