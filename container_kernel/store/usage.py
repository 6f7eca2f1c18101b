"""Usage: what a store weighs on its disk, and whose bytes those are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..oci.digest import Digest
from ..record import record
from .aside import QUARANTINE
from .reach import Reach
from .store import DOWNLOADS, Store

_SECTOR = 512


class Sizes:
    """The bytes that things of a store take on the disk; each is measured once."""

    def __init__(self, store: Store, reach: Reach) -> None:
        self._store = store
        self._reach = reach
        self._known: dict[Path, int] = {}

    def layer(self, chain_id: Digest) -> int:
        """Its tree, and what is said of it."""
        return self.folder(self._reach.layers[chain_id].folder)

    def blob(self, digest: Digest) -> int:
        """Its file, to the byte."""
        return self._reach.blobs[digest]

    def folder(self, path: Path) -> int:
        """A folder and all below; files with several names count once."""
        if path not in self._known:
            self._known[path] = sum(_blocks(path, set()))
        return self._known[path]

    def caches(self) -> dict[str, int]:
        """Every download cache, by its name."""
        return {path.name: self.folder(path) for path in cache_folders(self._store)}

    def measure_all(self) -> None:
        """Look at everything now, so that nothing is left to be measured later."""
        self.total()

    def total(self) -> int:
        """Layers, blobs and download caches together."""
        layers = sum(self.layer(chain) for chain in self._reach.layers)
        return layers + sum(self._reach.blobs.values()) + sum(self.caches().values())

    def at(self, reach: Reach) -> Sizes:
        """The same of another picture of the store; what was measured stays."""
        other = Sizes(self._store, reach)
        other._known = self._known
        return other


@record
class ImageUsage:
    """One image: what is its own, and what it shares with others."""

    digest: Digest
    names: tuple[str, ...]
    own: int
    shared: int


@record
class Usage:
    """A store in bytes. ``cached`` and what follows are in no image that somebody names."""

    images: tuple[ImageUsage, ...]
    named: int
    cached: int
    unreferenced: int
    other_blobs: int
    downloads: dict[str, int]
    set_aside: int

    @property
    def total(self) -> int:
        """Everything together."""
        own = self.named + self.cached + self.unreferenced + self.other_blobs
        return own + sum(self.downloads.values()) + self.set_aside


def usage(store: Store) -> Usage:
    """Share the bytes of ``store`` out."""
    reach = Reach(store)
    sizes = Sizes(store, reach)
    names: dict[Digest, list[str]] = {}
    for owner, digest in reach.owners.items():
        names.setdefault(digest, []).append(owner.removeprefix("image "))
    things = {digest: things_of(reach, digest) for digest in names}
    count: dict[Digest, int] = {}
    for of in things.values():
        for thing in of:
            count[thing] = count.get(thing, 0) + 1
    weigh = {thing: _weight(sizes, reach, thing) for thing in count}
    images = tuple(
        ImageUsage(
            digest,
            tuple(names[digest]),
            sum(weigh[t] for t in of if count[t] == 1),
            sum(weigh[t] for t in of if count[t] > 1),
        )
        for digest, of in things.items()
    )
    by_cache = {at for _, chain in reach.cache for at in reach.below(chain)}
    untagged = {thing for parts in reach.untagged() for thing in things_of(reach, parts.digest)}
    free = (reach.layers.keys() | reach.blobs.keys()) - count.keys()
    unreferenced = {t for t in free - by_cache if t in untagged or t in reach.layers}
    return Usage(
        tuple(sorted(images, key=lambda image: -image.own - image.shared)),
        sum(weigh.values()),
        sum(_weight(sizes, reach, thing) for thing in free & by_cache),
        sum(_weight(sizes, reach, thing) for thing in unreferenced),
        sum(_weight(sizes, reach, thing) for thing in free - by_cache - unreferenced),
        sizes.caches(),
        sizes.folder(store.home / QUARANTINE) + sizes.folder(store.snapshots.trash),
    )


def things_of(reach: Reach, digest: Digest) -> set[Digest]:
    """The blobs and layers of an image that are there."""
    parts = reach.parts(digest)
    found = {blob for blob in parts.blobs if blob in reach.blobs}
    for chain in parts.chains:
        found.update(reach.below(chain))
    return found


def cache_folders(store: Store) -> Iterator[Path]:
    """Where the download caches lie."""
    with suppress(FileNotFoundError):
        yield from sorted((store.home / DOWNLOADS).iterdir())


def _weight(sizes: Sizes, reach: Reach, thing: Digest) -> int:
    """A first layer and its plain blob bear the same name; both count."""
    layer = sizes.layer(thing) if thing in reach.layers else 0
    return layer + (sizes.blob(thing) if thing in reach.blobs else 0)


def _blocks(path: Path, seen: set[int]) -> Iterator[int]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                if info.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    if info.st_ino in seen:
                        continue
                    seen.add(info.st_ino)
                yield info.st_blocks * _SECTOR
                if entry.is_dir(follow_symlinks=False):
                    yield from _blocks(Path(entry.path), seen)
    except OSError:
        return
