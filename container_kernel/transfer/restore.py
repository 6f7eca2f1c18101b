"""Restore: a layer that was imported is made again, or compared, from the blob it came in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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


def guard(store: Store, coming: Parts | None = None) -> None:
    """From now on freeze nothing on an imported layer that was changed in ``store``.

    ``coming`` is an image whose blobs arrive and whose manifest will be there last.
    """
    others = [coming] if coming else []
    store.snapshots.examine_imported = lambda snapshot: examine_imported(
        store, Reach(store), others
    )(snapshot)


def examine_imported(store: Store, reach: Reach, others: Sequence[Parts] = ()) -> Examine:
    """What compares a layer's tree with what its blob unpacks to.

    It knows the layers of images that are in the store, and of ``others``.
    """
    known = {
        chain: (parts, number)
        for parts in (*reach.untagged(), *map(reach.parts, reach.owners.values()), *others)
        for number, (chain, layer) in enumerate(zip(parts.chains, parts.layers, strict=False))
        if store.content.path(layer.digest).exists()  # else it was built here, or nothing tells
    }

    def examine(snapshot: Snapshot) -> list[Change] | None:
        if snapshot.chain_id not in known:
            return None
        parts, number = known[snapshot.chain_id]
        try:
            with _unpacked(store, parts, number) as (active, _):
                return trees.compare(
                    active.upper, snapshot.path, idmap=store.idmap, userxattr=store.userxattr
                )
        except (ImageError, StoreError):  # the blob is bad, which is told of the blob
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


def _compression(layer: Descriptor) -> str:
    for ending, kind in (("gzip", GZIP), ("zstd", ZSTD)):
        if layer.media_type.endswith(ending):
            return kind
    return NONE
