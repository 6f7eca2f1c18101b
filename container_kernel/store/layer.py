"""Layer: what a frozen tree says of itself, in files beside it.

    fs              the tree, an overlay directory
    layer.json      its names, its size, what made it
    layer.headers   the headers of its tar, compressed: what each file was, without its content
    keys            the cache keys it answers, a copy of what the index knows

The first two make it a layer. The third tells which file was changed should the tree not hash to
its name any more; the fourth gives the index back.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError, out_of_files
from ..oci.digest import Digest, extend_chain
from ..record import record

TREE, RECORD, HEADERS, KEYS = "fs", "layer.json", "layer.headers", "keys"
_KEY = re.compile(r"([0-9a-f]{64}) (\d+\.\d+)")


@record
class Snapshot:
    """A committed layer on top of its parents. ``size`` is the bytes of its tar."""

    chain_id: Digest
    parent: Digest | None
    diff_id: Digest
    size: int
    created_by: str
    path: Path
    """The frozen overlay directory."""

    @property
    def folder(self) -> Path:
        """Where the tree and what is said of it lie."""
        return self.path.parent

    @property
    def is_consistent(self) -> bool:
        """True when its names follow from each other."""
        return extend_chain(self.parent, self.diff_id) == self.chain_id


def write(folder: Path, snapshot: Snapshot, headers: bytes | None) -> None:
    """Say in ``folder`` what ``snapshot`` is."""
    parent = snapshot.parent
    said = {
        "chain_id": str(snapshot.chain_id),
        "parent": str(parent) if parent else None,
        "diff_id": str(snapshot.diff_id),
        "size": snapshot.size,
        "created_by": snapshot.created_by,
    }
    if headers is not None:
        (folder / HEADERS).write_bytes(zlib.compress(headers, 1))
    (folder / RECORD).write_text(json.dumps(said, indent=1))


def read(folder: Path) -> Snapshot | None:
    """The layer in ``folder``; None when there is none.

    Raises:
        StoreError: what is said of it cannot be read.
        HostError: this process can open no more files.
    """
    try:
        said = json.loads((folder / RECORD).read_bytes())
        parent = said["parent"]
        return Snapshot(
            Digest(said["chain_id"]),
            Digest(parent) if parent else None,
            Digest(said["diff_id"]),
            int(said["size"]),
            str(said["created_by"]),
            folder / TREE,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if host_error := out_of_files(error):
            raise host_error from error
        raise StoreError(
            f"{folder}/{RECORD} cannot be read: {error}",
            hint="run `container-kernel store check --repair`, then the cells that build it",
        ) from error


def frozen_at(snapshot: Snapshot) -> float:
    """When it was frozen here, in seconds since 1970."""
    return (snapshot.folder / RECORD).stat().st_mtime


def is_touched(snapshot: Snapshot) -> bool:
    """True when an inode of the tree changed after the layer was frozen, as far as inodes tell.

    Nobody can set a change time back. Copying a whole store changes all of them.
    """
    frozen_ns = (snapshot.folder / RECORD).stat().st_ctime_ns
    folders = [os.fspath(snapshot.path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_ctime_ns > frozen_ns:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return False


def read_headers(folder: Path) -> bytes | None:
    """The headers of the layer's tar, where they are known."""
    try:
        return zlib.decompress((folder / HEADERS).read_bytes())
    except (OSError, zlib.error):
        return None


def add_key(snapshot: Snapshot, key: str, seconds: float) -> None:
    """Note that the layer answers the cache key ``key``. Not synced: the index knows it too."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(snapshot.folder / KEYS, flags, 0o600)
    try:
        os.write(fd, f"{key} {seconds:.6f}\n".encode())
    finally:
        os.close(fd)


def keys(snapshot: Snapshot) -> Iterator[tuple[str, float]]:
    """What `add_key` was told, as far as it can be read."""
    try:
        text = (snapshot.folder / KEYS).read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        if match := _KEY.fullmatch(line):
            yield match[1], float(match[2])
