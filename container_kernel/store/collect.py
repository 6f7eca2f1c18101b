"""Collect: what nobody needs goes, oldest use first, beside whoever builds, pulls and runs.

Three sorts of things:

- what a name means, and what a live process needs (its leases): never collected;
- what is only kept to be quick: layers of the build cache, the image a notebook ran on last,
  download caches, blobs that are in no image. They go by age or by budget, when that is asked for;
- what nothing refers to: it goes.

In two phases, so that a kill leaves at most bytes that nothing refers to. With the gate shut,
first the index forgets, then names are taken away by renames, an image's before its layers', a
layer's before its parents'; with the gate open again, what was renamed is removed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import StoreError
from ..oci.digest import Digest
from ..record import record, replace
from .leases import is_locked
from .reach import Reach
from .store import DOWNLOADS, Store
from .usage import Sizes, cache_folders

_UNREFERENCED = "nothing refers to it"
_DAY_S = 86400.0


@record
class Thing:
    """What may go: ``kind`` is layer, blob or cache. ``used`` is its last use, in seconds."""

    kind: str
    name: str
    size: int
    used: float
    what: str = ""
    why: str = ""


@record
class Plan:
    """What goes, in its order; what the store weighs before, and what is kept for whom."""

    victims: tuple[Thing, ...]
    total: int
    in_use: int
    """How many things live processes keep that would have gone."""

    @property
    def freed(self) -> int:
        """The bytes that go."""
        return sum(victim.size for victim in self.victims)


def collect(
    store: Store,
    *,
    max_bytes: int | None = None,
    older_than_s: float | None = None,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> Plan:
    """Remove what nobody needs; say what and why.

    Raises:
        StoreError: a named image cannot be read, so what it needs is not known.
    """
    if store.is_readonly and not dry_run:
        raise StoreError(f"the store {store.home} cannot be written", hint="add --dry-run to look")
    measured = Sizes(store, known := Reach(store))
    measured.measure_all()  # with the gate open: trees may be large
    wish = _Wish(max_bytes, older_than_s, clock())
    with store.leases.shut():
        # Leases before names: a process may name a thing and let go of it at any moment.
        held = store.leases.held()
        reach = Reach(store, known)
        plan = _Planner(store, reach, measured.at(reach), wish, held).plan()
        if not dry_run:
            _forget(store, plan, reach)
            _put_out_of_reach(store, plan, reach)
    if not dry_run:
        store.snapshots.empty_trash()
    return plan


@record
class _Wish:
    max_bytes: int | None
    older_than_s: float | None
    now: float

    def age(self, used: float) -> float:
        """Seconds since then; a clock that was set back makes nothing old."""
        return max(0.0, self.now - used)


class _Planner:
    def __init__(
        self,
        store: Store,
        reach: Reach,
        sizes: Sizes,
        wish: _Wish,
        held: frozenset[str] | None,
    ) -> None:
        self._store = store
        self._reach = reach
        self._sizes = sizes
        self._wish = wish
        self._all_held = held is None
        self._held = held or frozenset()
        self._named = self._closure(reach.tags.values(), strict=True)
        self._live = self._closure(_digests(self._held, "blob"))
        self._live |= {at for chain in _digests(self._held, "layer") for at in reach.below(chain)}
        quick = {at for _, chain in reach.cache for at in reach.below(chain)}
        self._quick = quick | self._closure(reach.notebooks.values())
        self._in_image = self._closure(parts.digest for parts in reach.untagged())

    def plan(self) -> Plan:
        """What goes, whole dependency chains at a time, until age and budget are content."""
        things = sorted(self._candidates(), key=lambda thing: thing.used)
        total = self._sizes.total()
        in_use = [thing for thing in things if self._is_live(thing)]
        free = [thing for thing in things if not self._is_live(thing)]
        left, victims = total, list[Thing]()
        for thing in sorted(free, key=lambda thing: thing.why != _UNREFERENCED):
            why = thing.why or self._why(thing, left)
            if why:
                victims.append(replace(thing, why=why))
                left -= thing.size
        return Plan(tuple(victims), total, len(in_use))

    def _why(self, thing: Thing, left: int) -> str:
        """The reason why something that is kept to be quick has to go now; none if it may stay."""
        older, most = self._wish.older_than_s, self._wish.max_bytes
        age = self._wish.age(thing.used)
        if older is not None and age >= older:
            return f"not used for {_age(age)}"
        if most is not None and left > most:
            return f"the store is over its budget; last used {_age(age)} ago"
        return ""

    def _is_live(self, thing: Thing) -> bool:
        if self._all_held:
            return True
        if thing.kind == "cache":
            return f"cache {thing.name}" in self._held
        return Digest(thing.name) in self._live

    def _candidates(self) -> Iterator[Thing]:
        reach, used = self._reach, self._uses()
        for chain, when in used.items():
            if chain not in self._named:
                why = "" if chain in self._quick else _UNREFERENCED
                what = reach.layers[chain].created_by
                yield Thing("layer", str(chain), self._sizes.layer(chain), when, what, why)
        for digest in reach.blobs.keys() - self._named:
            path = self._store.content.path(digest)
            is_free = digest in self._in_image and digest not in self._quick
            with suppress(FileNotFoundError):
                when = path.stat().st_mtime
                what = "of an image" if digest in self._in_image | self._quick else "a download"
                why = _UNREFERENCED if is_free else ""
                yield Thing("blob", str(digest), self._sizes.blob(digest), when, what, why)
        for path in cache_folders(self._store):
            size = self._sizes.folder(path)
            yield Thing("cache", path.name, size, path.stat().st_mtime, "download cache")

    def _uses(self) -> dict[Digest, float]:
        """When each layer was used last: at least as lately as those that stand on it."""
        layers = self._reach.layers
        used: dict[Digest, float] = {}
        for chain, snapshot in layers.items():
            try:
                when = snapshot.folder.stat().st_mtime
            except FileNotFoundError:
                continue
            at: Digest | None = chain
            while at in layers and used.get(at, -1.0) < when:
                used[at] = when
                at = layers[at].parent
        # Children first where the times are the same: Python's sort keeps this order.
        depth = {chain: sum(1 for _ in self._reach.below(chain)) for chain in used}
        return dict(sorted(used.items(), key=lambda item: -depth[item[0]]))

    def _closure(self, images: Iterable[Digest], *, strict: bool = False) -> set[Digest]:
        found: set[Digest] = set()
        for digest in images:
            parts = self._reach.parts(digest)
            if strict and parts.trouble and digest in self._reach.blobs:
                raise StoreError(
                    f"what a named image needs cannot be read: {parts.trouble}",
                    hint="run `container-kernel store check --repair` first",
                )
            found.update(parts.blobs)
            for chain in parts.chains:
                found.update(self._reach.below(chain))
        return found


def _forget(store: Store, plan: Plan, reach: Reach) -> None:
    """Let the index say nothing about what goes."""
    layers = {Digest(victim.name) for victim in plan.victims if victim.kind == "layer"}
    blobs = {Digest(victim.name) for victim in plan.victims if victim.kind == "blob"}
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


def _put_out_of_reach(store: Store, plan: Plan, reach: Reach) -> None:
    for victim in plan.victims:
        if victim.kind == "blob":
            store.content.delete(Digest(victim.name))
    for victim in plan.victims:
        if victim.kind == "layer":
            store.snapshots.discard(reach.layers[Digest(victim.name)])
        elif victim.kind == "cache":
            store.snapshots.throw_away(store.home / DOWNLOADS / victim.name)
    for path in _old_locks(store.home / "building"):
        path.unlink(missing_ok=True)


def _old_locks(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from (path for path in folder.iterdir() if not is_locked(path))


def _digests(leases: Iterable[str], kind: str) -> Iterator[Digest]:
    for lease in leases:
        found, _, digest = lease.partition(" ")
        if found == kind:
            yield Digest(digest)


def _age(age_s: float) -> str:
    for unit, seconds in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if age_s >= 2 * seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{age_s:.0f} seconds"
