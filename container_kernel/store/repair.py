"""Repair: bad things are moved aside, never deleted; what can be made again here, is.

A layer that is moved aside is missing afterwards: its cached step is a miss, and running the
notebook (or loading the image) again brings it back under the same name. Layers and images that
have nothing to do with it are not touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress

from . import index, layer, trees
from .aside import QUARANTINE, set_aside
from .check import Finding
from .layer import Snapshot
from .store import Store

_ROWS = "rows.json"


def repair(store: Store, findings: list[Finding]) -> list[tuple[Finding, str]]:
    """Do what can be done about ``findings``; what was done about which, in words.

    What only running or loading again brings back is not in it.
    """
    return list(_Repair(store).run(findings))


class _Repair:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._aside = store.home / QUARANTINE
        self._done: dict[str, str] = {}

    def run(self, findings: list[Finding]) -> Iterator[tuple[Finding, str]]:
        if any(finding.damage == "database-damaged" for finding in findings):
            self._rebuild()
        trees_ = {f.path for f in findings if f.damage in _OF_TREES}
        for path in trees_:
            self._done[path] = self._tree(path, {f.damage for f in findings if f.path == path})
        for finding in findings:
            if done := self._one(finding):
                yield finding, done

    def _one(self, finding: Finding) -> str:
        match finding.damage:
            case "database-damaged":
                return self._done["index.db"]
            case "row-damaged":
                return self._row(finding)
            case "stale-row":
                self._store.index.remove("cache", finding.thing.removeprefix("cache: "))
                return "removed"
            case "names-copy":
                self._store.index.copy_names()
                return "written again"
            case "open-to-others":
                place = self._store.home / finding.path
                place.chmod(0o700 if place.is_dir() else 0o600)
                return "closed"
            case "staging-left":
                (self._store.home / finding.path).unlink(missing_ok=True)
                return "removed"
            case damage if damage in _OF_TREES:
                return self._done[finding.path]
            case damage if damage in _MOVED:
                return self._move(finding.path)
        return ""

    def _rebuild(self) -> None:
        self._done["index.db"] = self._store.rebuild_index()

    def _row(self, finding: Finding) -> str:
        """Put a name back from the copy; keep what else it was where people can find it."""
        table, _, key = finding.thing.partition(": ")
        db = self._store.index
        known = (index.copied_tags(self._store.home) or {}).get(key)
        if table == "tags" and known is not None:
            db.set_tag(key, known)
            return f"put back from {index.COPY}: {known}"
        rows = [row for row in db.rows(table, whole=False) if row[0] == key]
        self._aside.mkdir(mode=0o700, exist_ok=True)
        with (self._aside / _ROWS).open("a") as file:
            file.writelines(json.dumps({"table": table, "row": row}) + "\n" for row in rows)
        db.remove(table, key)
        return f"moved to {QUARANTINE}/{_ROWS}"

    def _tree(self, path: str, damages: set[str]) -> str:
        """Set back what only metadata changed of; move the layer aside else."""
        found = layer.read(self._store.home / path)
        if found is not None and damages <= trees.METADATA and self._set_back(found):
            return "set back as it was"
        return self._move(path)

    def _set_back(self, found: Snapshot) -> bool:
        store = self._store
        with suppress(OSError, KeyError):
            changes = trees.examine(found, idmap=store.idmap, userxattr=store.userxattr)
            trees.set_back(found, changes, store.idmap)
            return not trees.examine(found, idmap=store.idmap, userxattr=store.userxattr)
        return False

    def _move(self, path: str) -> str:
        if path not in self._done:
            place = self._store.home / path
            if place.parent == self._store.snapshots.folder:
                self._store.snapshots.forget(place)
            aside = set_aside(place, self._store.home)
            self._done[path] = f"moved to {os.path.relpath(aside, self._store.home)}"
        return self._done[path]


_OF_TREES = frozenset(
    (trees.CONTENT, trees.ADDED, trees.REMOVED, trees.MODE, trees.OWNER, trees.XATTR, trees.MTIME)
)
_MOVED = frozenset(
    (
        *("blob-changed", "blob-size", "blob-not-a-file", "manifest-damaged", "config-damaged"),
        *("record-missing", "record-damaged", "tree-missing", "unknown-file"),
    )
)
