"""Plan: what of a store goes, in which order, and why; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ..errors import StoreError
from ..oci.digest import Digest
from ..record import record, replace
from . import beside, opened
from .places import INPUTS
from .reach import Reach
from .store import Store
from .usage import Sizes, cache_folders

_UNREFERENCED = "nothing refers to it"
_DAY_S = 86400.0


@record
class Thing:
    """What may go. ``used`` is its last use, in seconds.

    ``kind`` is layer, blob, cache, input (a package kept for locks), record (see `beside`) or
    bundle (see `opened`); ``name`` is a digest, a cache's name, or a path in the store.
    """

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
    kept: tuple[Thing, ...] = ()
    """What is old enough, and stays all the same; ``why`` says why."""

    @property
    def freed(self) -> int:
        """The bytes that go."""
        return sum(victim.size for victim in self.victims)


@record
class Wish:
    """What is asked for: a budget, an age; ``locked`` are the packages that a lock names."""

    max_bytes: int | None
    older_than_s: float | None
    now: float
    locked: frozenset[str] = frozenset()

    def age(self, used: float) -> float:
        """Seconds since then; a clock that was set back makes nothing old."""
        return max(0.0, self.now - used)


class Planner:
    """Plans by one picture of the store, and by what was leased then: None for all there is."""

    def __init__(
        self, store: Store, reach: Reach, sizes: Sizes, wish: Wish, held: frozenset[str] | None
    ) -> None:
        self._store = store
        self._reach = reach
        self._sizes = sizes
        self._wish = wish
        self._all_held = held is None
        self._held = held or frozenset()
        self._named = self._closure(reach.tags.values(), strict=True)
        self._live = needed(reach, self._held)
        quick = {at for _, chain in reach.cache for at in reach.below(chain)}
        self._quick = quick | self._closure(reach.notebooks.values())
        self._in_image = self._closure(parts.digest for parts in reach.untagged())

    def plan(self) -> Plan:
        """What goes, whole dependency chains at a time, until age and budget are content."""
        things = sorted(self._candidates(), key=lambda thing: thing.used)
        total = self._sizes.total()
        in_use = [thing for thing in things if self._is_live(thing)]
        left, victims, kept = total, list[Thing](), list[Thing]()
        # What a lock names is worth keeping longest: it may be nowhere else any more.
        for thing in sorted(
            (thing for thing in things if not self._is_live(thing)),
            key=lambda thing: (not thing.why, self._is_locked(thing)),
        ):
            if thing.why or (why := self._why(thing, left)):
                victims.append(thing if thing.why else replace(thing, why=why))
                left -= thing.size
            elif self._is_locked(thing) and self._is_old(thing):
                kept.append(replace(thing, why="a lock names it"))
        bundles, changed = self._bundles()
        total += sum(bundle.size for bundle in bundles)  # as if they lay in the store
        return Plan((*victims, *bundles), total, len(in_use), (*kept, *changed))

    def _why(self, thing: Thing, left: int) -> str:
        """The reason why something that is kept to be quick has to go now; none if it may stay."""
        most, age = self._wish.max_bytes, self._wish.age(thing.used)
        if self._is_old(thing) and not self._is_locked(thing):
            unknown = "; no lock that this store has seen names it" * (thing.kind == "input")
            return f"not used for {_age(age)}{unknown}"
        if most is not None and left > most:
            return f"the store is over its budget; last used {_age(age)} ago"
        return ""

    def _is_old(self, thing: Thing) -> bool:
        older = self._wish.older_than_s
        return older is not None and self._wish.age(thing.used) >= older

    def _is_locked(self, thing: Thing) -> bool:
        return thing.kind == "input" and thing.name in self._wish.locked

    def _is_live(self, thing: Thing) -> bool:
        if self._all_held:
            return True
        if thing.kind == "cache":
            return f"cache {thing.name}" in self._held
        return thing.kind in ("layer", "blob") and Digest(thing.name) in self._live

    def _candidates(self) -> Iterator[Thing]:
        yield from self._images()
        for path in cache_folders(self._store):
            size = self._sizes.cache(path)
            yield Thing("cache", path.name, size, path.stat().st_mtime, "download cache")
        for path in (self._store.home / INPUTS).glob("*"):
            with suppress(FileNotFoundError):
                when, size = path.stat().st_mtime, self._sizes.input(path)
                yield Thing("input", path.name, size, when, "a package kept for locks")
        yield from self._records()

    def _records(self) -> Iterator[Thing]:
        home = self._store.home
        asked_s = self._wish.older_than_s
        for path, kept_s, why in beside.without_subject(home, self._reach):
            with suppress(FileNotFoundError):
                info = path.stat()
                least_s = max(min(kept_s, asked_s or kept_s), beside.LEAST_S)
                if self._wish.age(info.st_mtime) >= least_s:
                    name = str(path.relative_to(home))
                    yield Thing("record", name, info.st_blocks * 512, info.st_mtime, "", why)

    def _bundles(self) -> tuple[list[Thing], list[Thing]]:
        """The opened bundles that go, by age only since they are no part of the store."""
        going, staying = list[Thing](), list[Thing]()
        for place in opened.places(self._store.home) if self._wish.older_than_s else ():
            size = self._sizes.folder(place)
            thing = Thing("bundle", place.name, size, place.stat().st_mtime, "an opened bundle")
            if self._is_old(thing):
                why = opened.why_kept(place)
                age = f"not used for {_age(self._wish.age(thing.used))}"
                (staying if why else going).append(replace(thing, why=why or age))
        return going, staying

    def _images(self) -> Iterator[Thing]:
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
            found |= closure(self._reach, digest, strict=strict)
        return found


def closure(reach: Reach, digest: Digest, *, strict: bool = False) -> set[Digest]:
    """An image with all that it consists of, as far as that is known.

    Raises:
        StoreError: it is not all known, and ``strict`` asks for that.
    """
    parts = reach.parts(digest)
    if strict and parts.trouble and digest in reach.blobs:
        raise StoreError(
            f"what a named image needs cannot be read: {parts.trouble}",
            hint="run `container-kernel store check --repair` first",
        )
    return {*parts.blobs, *(at for chain in parts.chains for at in reach.below(chain))}


def needed(reach: Reach, leases: Iterable[str]) -> set[Digest]:
    """The layers and blobs that these leases keep, with all that those stand on."""
    found: set[Digest] = set()
    for lease in leases:
        kind, _, digest = lease.partition(" ")
        if kind == "blob":
            found |= closure(reach, Digest(digest))
        elif kind == "layer":
            found.update(reach.below(Digest(digest)))
    return found


def _age(age_s: float) -> str:
    for unit, seconds in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if age_s >= 2 * seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{age_s:.0f} seconds"
