"""Usage: what a store weighs on its disk, and whose bytes those are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..oci.digest import Digest
from ..record import record
from . import opened
from .aside import QUARANTINE
from .places import DOWNLOADS, INPUTS, RECORDS, VOLUMES, WORKING
from .reach import Reach
from .store import Store

_SECTOR = 512


class Sizes:
    """The bytes that things of a store take on the disk; each is measured once."""

    def __init__(self, store: Store, reach: Reach) -> None:
        self._store = store
        self._reach = reach
        self._known: dict[Path, int] = {}
        self._packages: dict[Path, tuple[int, int]] | None = None

    def layer(self, chain_id: Digest) -> int:
        """Its tree, and what is said of it."""
        return self.folder(self._reach.layers[chain_id].folder)

    def blob(self, digest: Digest) -> int:
        """Its file, to the byte."""
        return self._reach.blobs[digest]

    def folder(self, path: Path) -> int:
        """A folder and all below, or a file; files with several names count once."""
        if path not in self._known:
            self._known[path] = _own(path) + sum(_blocks(path, set()))
        return self._known[path]

    def cache(self, path: Path) -> int:
        """A download cache without the files that are kept for locks, which it may have too."""
        if path not in self._known:
            inputs = {inode for inode, _ in self._inputs().values()}
            self._known[path] = _own(path) + sum(_blocks(path, inputs))
        return self._known[path]

    def input(self, path: Path) -> int:
        """A package that is kept for locks."""
        return self._inputs().get(path, (0, 0))[1]

    def caches(self) -> dict[str, int]:
        """Every download cache, by its name, and what is kept for locks."""
        caches = {path.name: self.cache(path) for path in cache_folders(self._store)}
        inputs = {INPUTS: sum(size for _, size in self._inputs().values())}
        return caches | (inputs if self._inputs() else {})

    def _inputs(self) -> dict[Path, tuple[int, int]]:
        """The inode and the bytes of each package that is kept for locks."""
        if self._packages is None:
            self._packages = {}
            for path in (self._store.home / INPUTS).glob("*"):
                with suppress(FileNotFoundError):
                    info = path.stat()
                    self._packages[path] = info.st_ino, info.st_blocks * _SECTOR
        return self._packages

    def total(self) -> int:
        """Layers, blobs and download caches together."""
        layers = sum(self.layer(chain) for chain in self._reach.layers)
        return layers + sum(self._reach.blobs.values()) + sum(self.caches().values())


@record
class ImageUsage:
    """One image: what is its own, and what it shares with others."""

    digest: Digest
    names: tuple[str, ...]
    own: int
    shared: int


@record
class Usage:
    """A store in bytes. ``cached`` and what follows are in no image that somebody names.

    ``bundles`` lie beside it: bundles that were opened, each with a store of its own.
    """

    images: tuple[ImageUsage, ...]
    named: int
    cached: int
    unreferenced: int
    other_blobs: int
    downloads: dict[str, int]
    volumes: dict[str, int]
    records: int
    working: int
    set_aside: int
    bundles: dict[str, int]

    @property
    def total(self) -> int:
        """Everything in the store together."""
        own = self.named + self.cached + self.unreferenced + self.other_blobs
        folders = sum(self.downloads.values()) + sum(self.volumes.values())
        return own + folders + self.records + self.working + self.set_aside


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
        {path.name: sizes.folder(path) for path in sorted(store.home.glob(f"{VOLUMES}/*"))},
        sum(sizes.folder(store.home / name) for name in RECORDS),
        sum(sizes.folder(store.home / name) for name in WORKING),
        sum(sum(_blocks(path, set())) for path in (store.home / QUARANTINE, store.snapshots.trash)),
        {place.name: sizes.folder(place) for place in opened.places(store.home)},
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
        folders = sorted((store.home / DOWNLOADS).iterdir())
        yield from (path for path in folders if path != store.home / INPUTS)


def _weight(sizes: Sizes, reach: Reach, thing: Digest) -> int:
    """A first layer and its plain blob bear the same name; both count."""
    layer = sizes.layer(thing) if thing in reach.layers else 0
    return layer + (sizes.blob(thing) if thing in reach.blobs else 0)


def _own(path: Path) -> int:
    try:
        return path.lstat().st_blocks * _SECTOR
    except FileNotFoundError:
        return 0


def _blocks(path: Path, seen: set[int]) -> Iterator[int]:
    left = [os.fspath(path)]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir(follow_symlinks=False)
                if info.st_nlink > 1 and not is_folder:
                    if info.st_ino in seen:
                        continue
                    seen.add(info.st_ino)
                yield info.st_blocks * _SECTOR
                if is_folder:
                    left.append(entry.path)
