"""Rebuild: the index is opened, and made again from what the store holds when it is damaged.

The damaged file is moved aside, never deleted. Rows that can still be read in it are taken over;
names come from their copy, cache keys from beside their layers. What a notebook last looked like
may be lost: it is made again when the notebook is run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from ..errors import IndexDamaged
from . import layer
from .aside import set_aside
from .index import TABLES, Index, checksum, copied_tags, damage_mark
from .leases import Leases
from .snapshots import Snapshots

_Row = tuple[str, tuple[object, ...]]


def open_index(path: Path, snapshots: Snapshots, leases: Leases) -> tuple[Index, str]:
    """The index, and what its user is to be told of it, if anything."""
    if not _is_suspect(path, snapshots):
        with suppress(IndexDamaged):
            return Index(path), ""
    with leases.shut():  # one process does it, others that come now find it done
        if not _is_suspect(path, snapshots):
            with suppress(IndexDamaged):
                return Index(path), ""
        return rebuild(path, snapshots)


def rebuild(path: Path, snapshots: Snapshots) -> tuple[Index, str]:
    """Move the index aside and make it again; returns it, and what was saved in words."""
    aside = set_aside(path, path.parent)
    for suffix in ("-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    index = Index(path)
    with index.together():
        for table, values in (*_beside_layers(snapshots), *_salvaged(aside), *_copied(path.parent)):
            index.put(table, *values)
    saved = {table: len(index.rows(table)) for table in TABLES}
    damage_mark(path).unlink(missing_ok=True)
    return index, (
        f"the store's database was damaged and has been rebuilt from what the store holds: "
        f"{saved['tags']} names, {saved['cache']} cached steps, {saved['notebooks']} notebooks; "
        f"the damaged one is {aside}"
    )


def _is_suspect(path: Path, snapshots: Snapshots) -> bool:
    """True when a process found damage, or the file is gone or empty and should not be."""
    if damage_mark(path).exists():
        return True
    is_empty = not path.exists() or path.stat().st_size == 0
    return is_empty and (any(snapshots.folder.iterdir()) or bool(copied_tags(path.parent)))


def _beside_layers(snapshots: Snapshots) -> Iterator[_Row]:
    for snapshot in snapshots.walk():
        for key, seconds in layer.keys(snapshot):
            yield "cache", (key, str(snapshot.chain_id), seconds)


def _salvaged(path: Path) -> Iterator[_Row]:
    """The rows of a damaged file that can be read and are whole."""
    has_copy = copied_tags(path.parent.parent) is not None
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        for table in TABLES:
            if table == "tags" and has_copy:
                continue
            with suppress(sqlite3.Error):
                for *values, found in db.execute(f"SELECT * FROM {table}"):
                    if checksum(*values) == found:
                        yield table, tuple(values)


def _copied(home: Path) -> Iterator[_Row]:
    for name, digest in (copied_tags(home) or {}).items():
        yield "tags", (name, str(digest))
