"""Restore: a layer that was imported is made again, or compared, from the blob it came in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import ImageError, StoreError
from ..oci.digest import Digest
from ..oci.spec import Descriptor
from ..store import trees
from ..store.reach import Parts, Reach
from ..store.trees import Change, Examine
from .compression import GZIP, NONE, ZSTD
from .unpack import unpack_layer

if TYPE_CHECKING:
    from ..store.layer import Snapshot
    from ..store.snapshots import Active
    from ..store.store import Store


def restore(store: Store) -> list[Digest]:
    """Unpack the missing layers of named images whose blobs are there; returns their chain IDs."""
    reach, made = Reach(store), list[Digest]()
    for digest in dict.fromkeys(reach.owners.values()):
        parts = reach.parts(digest)
        for number, chain in enumerate(parts.chains):
            if store.snapshots.get(chain) is None:
                with suppress(ImageError, StoreError):
                    _make(store, parts, number)
                    made.append(chain)
    return made


def examine_imported(store: Store, reach: Reach) -> Examine:
    """What compares a layer's tree with what its blob unpacks to."""
    known: dict[Digest, tuple[Parts, int]] = {}
    for parts in (*reach.untagged(), *map(reach.parts, reach.owners.values())):
        known.update((chain, (parts, number)) for number, chain in enumerate(parts.chains))

    def examine(snapshot: Snapshot) -> list[Change] | None:
        parts, number = known.get(snapshot.chain_id, (None, 0))
        if parts is None or _is_plain(store, parts, number):
            return None
        try:
            with _unpacked(store, parts, number) as (active, _):
                return trees.compare(
                    active.upper, snapshot.path, idmap=store.idmap, userxattr=store.userxattr
                )
        except (ImageError, StoreError):  # the blob is missing or bad, which is told of the blob
            return None

    return examine


def _make(store: Store, parts: Parts, number: int) -> None:
    with _unpacked(store, parts, number) as (active, size):
        store.snapshots.commit(active, parts.diff_ids[number], size, "restored")


@contextmanager
def _unpacked(store: Store, parts: Parts, number: int) -> Iterator[tuple[Active, int]]:
    layer, parent = parts.layers[number], parts.chains[number - 1] if number else None
    below = [snapshot.path for snapshot in reversed(store.snapshots.chain(parent))]
    blob = store.content.path(layer.digest)
    store.content.size(layer.digest)  # says that it is missing
    active = store.snapshots.prepare(parent)
    try:
        found = unpack_layer(
            blob,
            active.upper,
            diff_id=parts.diff_ids[number],
            compression=_compression(layer),
            idmap=store.idmap,
            userxattr=store.userxattr,
            parents=below,
        )
        yield active, found.size
    finally:
        if os.path.isdir(active.path):
            store.snapshots.remove(active)


def _is_plain(store: Store, parts: Parts, number: int) -> bool:
    """True for a layer that was built here: its tar exists as its tree only."""
    return not store.content.path(parts.layers[number].digest).exists()


def _compression(layer: Descriptor) -> str:
    for ending, kind in (("gzip", GZIP), ("zstd", ZSTD)):
        if layer.media_type.endswith(ending):
            return kind
    return NONE
