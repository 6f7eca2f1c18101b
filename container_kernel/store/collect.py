"""Collect: what nobody needs goes, oldest use first, beside whoever builds, pulls and runs.

Three sorts of things:

- what a name means, and what a live process needs (its leases): never collected, nor are volumes;
- what is only kept to be quick: layers of the build cache, the image a notebook ran on last,
  download caches, blobs that are in no image. They go by age or by budget, when that is asked for;
- what nothing refers to: it goes.

What goes is planned, and everything is measured, while others work. Then, a few things at a time
and with the gate shut, what somebody came to need since is struck out, the index forgets the rest,
and names are taken away by renames, an image's before its layers', a layer's before its parents'.
With the gate open again, what was renamed is removed. So a kill leaves at most bytes that nothing
refers to, and nobody waits for long.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import StoreError
from ..oci.digest import Digest
from ..record import replace
from . import opened
from .leases import is_locked
from .places import DOWNLOADS, INPUTS
from .plan import Plan, Planner, Thing, Wish, closure, needed
from .reach import Reach
from .store import Store
from .usage import Sizes

_AT_ONCE = 256
_ORDER = ("blob", "layer", "cache", "input", "record")


def collect(
    store: Store,
    *,
    max_bytes: int | None = None,
    older_than_s: float | None = None,
    locked: frozenset[str] = frozenset(),
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> Plan:
    """Remove what nobody needs; say what and why.

    ``locked`` are the digests, in hexadecimal, of packages that a notebook's lock names: no age
    takes them, and a budget takes them last.

    Raises:
        StoreError: a named image cannot be read, so what it needs is not known.
    """
    if store.is_readonly and not dry_run:
        raise StoreError(f"the store {store.home} cannot be written", hint="add --dry-run to look")
    wish = Wish(max_bytes, older_than_s, clock(), locked)
    with store.leases.shut():
        held = store.leases.held()
    reach = Reach(store)
    plan = Planner(store, reach, Sizes(store, reach), wish, held).plan()
    if dry_run:
        return plan
    gone = _Removal(store, reach, held).run(plan.victims)
    bundles = [thing for thing in plan.victims if thing.kind == "bundle" and _close(store, thing)]
    opened.sweep(store.home, wish.now)
    store.snapshots.empty_trash()
    return replace(plan, victims=(*gone, *bundles))


class _Removal:
    """Takes away what was planned by ``reach`` and ``held``, but for what is needed by now."""

    def __init__(self, store: Store, reach: Reach, held: frozenset[str] | None) -> None:
        self._store = store
        self._reach = reach
        self._held = held or frozenset()
        self._needed: set[Digest] = set()

    def run(self, victims: tuple[Thing, ...]) -> list[Thing]:
        """What went."""
        ordered = [thing for kind in _ORDER for thing in victims if thing.kind == kind]
        gone: list[Thing] = []
        for start in range(0, max(len(ordered), 1), _AT_ONCE):
            with self._store.leases.shut():
                gone += self._some(ordered[start : start + _AT_ONCE])
        return gone

    def _some(self, victims: list[Thing]) -> list[Thing]:
        leases = self._store.leases.held()
        if leases is None:
            return []
        now = Reach(self._store, self._reach)
        self._needed |= self._since(now, leases)
        for thing in victims:
            if thing.kind in ("layer", "blob") and _was_used(self._path(thing), thing):
                self._needed |= closure(now, Digest(thing.name)) | {*now.below(Digest(thing.name))}
        free = [thing for thing in victims if self._is_free(thing, now, leases)]
        _forget(self._store, free, now)
        for path in _old_locks(self._store.home / "building"):
            path.unlink(missing_ok=True)
        return [thing for thing in free if self._put_out_of_reach(thing)]

    def _since(self, now: Reach, leases: frozenset[str]) -> set[Digest]:
        """What somebody came to need since it was planned."""
        before = self._reach
        found = needed(now, leases - self._held)
        images = {*now.owners.values(), *(now.blobs.keys() - before.blobs.keys())}
        for digest in images - {at for at in before.owners.values() if before.knows(at)}:
            found |= closure(now, digest, strict=digest in now.tags.values())
        chains = {chain for _, chain in {*now.cache} - {*before.cache}}
        for chain in chains | (now.layers.keys() - before.layers.keys()):
            found.update(now.below(chain))
        return found

    def _is_free(self, thing: Thing, now: Reach, leases: frozenset[str]) -> bool:
        if thing.kind == "cache":
            is_held = f"cache {thing.name}" in leases
            return not is_held and not _was_used(self._path(thing), thing)
        if thing.kind in ("layer", "blob"):
            digest = Digest(thing.name)
            there = now.layers if thing.kind == "layer" else now.blobs
            return digest in there and digest not in self._needed
        return True

    def _put_out_of_reach(self, thing: Thing) -> bool:
        """By one rename; files that nobody leases are looked at once more after it."""
        path = self._path(thing)
        if thing.kind == "layer":
            self._store.snapshots.forget(path)
        gone = self._store.snapshots.throw_away(path)
        if gone and thing.kind in ("input", "record") and _was_used(gone, thing):
            with suppress(OSError):  # another may have been written meanwhile
                os.link(gone, path)
            return False
        return gone is not None

    def _path(self, thing: Thing) -> Path:
        home = self._store.home
        match thing.kind:
            case "layer":
                return self._reach.layers[Digest(thing.name)].folder
            case "blob":
                return self._store.content.path(Digest(thing.name))
            case "cache":
                return home / DOWNLOADS / thing.name
            case "input":
                return home / INPUTS / thing.name
        return home / thing.name


def _was_used(path: Path, thing: Thing) -> bool:
    """True when it was used after it was planned to go; what is gone was not."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime > thing.used
    return False


def _close(store: Store, thing: Thing) -> bool:
    return opened.remove(opened.folder(store.home) / thing.name, thing.used)


def _forget(store: Store, victims: list[Thing], reach: Reach) -> None:
    """Let the index say nothing about what goes."""
    layers = {Digest(victim.name) for victim in victims if victim.kind == "layer"}
    blobs = {Digest(victim.name) for victim in victims if victim.kind == "blob"}
    gone = layers | blobs
    with store.index.together():
        for key, chain in reach.cache:
            if chain in layers or chain not in reach.layers:
                store.index.remove("cache", key)
        for text, _ in store.index.rows("kernels"):
            if Digest(text) in layers:
                store.index.remove("kernels", text)
        for path, state in store.index.rows("notebooks"):
            digest = reach.notebooks.get(path)
            if digest and gone & {digest, *reach.parts(digest).chains}:
                store.index.put("notebooks", path, _without_image(state))


def _without_image(state: str) -> str:
    return json.dumps({**json.loads(state), "image": None})


def _old_locks(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from (path for path in folder.iterdir() if not is_locked(path))
