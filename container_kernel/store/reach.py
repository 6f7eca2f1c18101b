"""Reach: what needs what in a store, from the names down to the blobs.

Roots are read before what they reach. Whoever publishes does it the other way round, so what is
missing here is missing, also beside running builders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ImageError, StoreError
from ..oci.digest import Digest, extend_chain
from ..oci.spec import Descriptor
from ..record import record
from .layer import Snapshot

if TYPE_CHECKING:
    from .store import Store

_MOST_BYTES = 4 << 20  # of a document, as image-spec asks registries to allow


@record
class Parts:
    """What one image consists of. ``trouble`` says why not all of it is known."""

    digest: Digest
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    diff_ids: tuple[Digest, ...] = ()
    trouble: str = ""

    @property
    def chains(self) -> tuple[Digest, ...]:
        """The file systems of its layers, base first."""
        made: list[Digest] = []
        for diff_id in self.diff_ids:
            made.append(extend_chain(made[-1] if made else None, diff_id))
        return tuple(made)

    @property
    def blobs(self) -> tuple[Digest, ...]:
        """Its manifest, its config, its layers."""
        config = [self.config.digest] if self.config else []
        return (self.digest, *config, *(layer.digest for layer in self.layers))


class Reach:
    """A picture of a store at one moment; what an ``earlier`` one read of images is true still."""

    def __init__(self, store: Store, earlier: Reach | None = None) -> None:
        self._store = store
        self.tags = store.index.tags()
        self.notebooks = dict(_notebooks(store))
        self.cache = [(key, Digest(chain)) for key, chain, _ in store.index.rows("cache")]
        self.blobs = {blob.digest: blob.size for blob in store.content.walk()}
        known = earlier._folders if earlier else {}
        self._folders: dict[str, Snapshot] = store.snapshots.by_folder(known)
        self.layers = {snapshot.chain_id: snapshot for snapshot in self._folders.values()}
        self._parts: dict[Digest, Parts] = (
            {digest: parts for digest, parts in earlier._parts.items() if not parts.trouble}
            if earlier
            else {}
        )

    @property
    def owners(self) -> dict[str, Digest]:
        """The images that somebody names: ``image NAME`` and ``notebook PATH``."""
        return {f"image {name}": digest for name, digest in self.tags.items()} | {
            f"notebook {path or '(without a file)'}": digest
            for path, digest in self.notebooks.items()
        }

    def parts(self, digest: Digest) -> Parts:
        """What the image of that manifest consists of, as far as that can be read."""
        if digest not in self._parts:
            self._parts[digest] = self._read(digest)
        return self._parts[digest]

    def knows(self, digest: Digest) -> bool:
        """True when it was found out without trouble what the image consists of."""
        return digest in self._parts and not self._parts[digest].trouble

    def untagged(self) -> Iterator[Parts]:
        """The images that nobody names."""
        named = set(self.owners.values())
        for digest, size in self.blobs.items():
            if digest not in named and size <= _MOST_BYTES and self._looks_like_json(digest):
                parts = self.parts(digest)
                if parts.config is not None:
                    yield parts

    def below(self, chain_id: Digest) -> Iterator[Digest]:
        """The layer and those it stands on, topmost first; ends where one is missing."""
        at: Digest | None = chain_id
        while at is not None and at in self.layers:
            yield at
            at = self.layers[at].parent

    def needed_by(self) -> dict[str, list[str]]:
        """Who is broken without a thing: owners by ``layer DIGEST`` and ``blob DIGEST``."""
        found: dict[str, list[str]] = {}
        for owner, digest in self.owners.items():
            parts = self.parts(digest)
            things = [f"blob {blob}" for blob in parts.blobs]
            things += [f"layer {chain}" for chain in parts.chains]
            for thing in dict.fromkeys(things):
                found.setdefault(thing, []).append(owner)
        return found

    def _read(self, digest: Digest) -> Parts:
        try:
            manifest = self._store.manifest(digest)
        except (ImageError, StoreError) as error:
            return Parts(digest, trouble=error.message)
        try:
            config = self._store.image_config(manifest)
        except (ImageError, StoreError) as error:
            return Parts(digest, manifest.config, manifest.layers, trouble=error.message)
        return Parts(digest, manifest.config, manifest.layers, tuple(config.diff_ids))

    def _looks_like_json(self, digest: Digest) -> bool:
        try:
            with self._store.content.open(digest) as blob:
                return blob.read(1) == b"{"
        except (OSError, StoreError):
            return False


def _notebooks(store: Store) -> Iterator[tuple[str, Digest]]:
    """The image that each notebook ran on last."""
    for path, state in store.index.rows("notebooks"):
        try:
            image = json.loads(state).get("image")
            if image:
                yield path, Digest(image)
        except (ValueError, AttributeError):
            continue
