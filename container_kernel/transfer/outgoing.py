"""Outgoing: an image of the store, as the bytes that leave.

Layers the store has as blobs (imported ones) are copied; layers built here exist as frozen trees
only and are encoded once more. Both are hashed on the way: what leaves is what its digest says, or
nothing leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import BlobDamaged, ImageError, StoreError
from ..oci.changeset import encode
from ..oci.digest import Digest, chain_id
from ..oci.spec import ImageConfig, Manifest
from .compression import Decompressed

if TYPE_CHECKING:
    from ..store.snapshots import Snapshot
    from ..store.store import Store

_CHUNK_BYTES = 1 << 20

Write = Callable[[bytes | memoryview], object]


class Outgoing:
    """An image of the store and the bytes of its parts."""

    def __init__(self, store: Store, digest: Digest) -> None:
        self._store = store
        self.digest = digest
        self.manifest_data = store.content.read(digest)
        self.manifest = Manifest.from_json(self.manifest_data)
        self.config_data = store.content.read(self.manifest.config.digest)
        self.config = ImageConfig.from_json(self.config_data)
        if len(self.config.diff_ids) != len(self.manifest.layers):
            raise ImageError(f"image {digest.short} lists other layers than its config")

    def blob(self, layer: int, write: Write) -> None:
        """Write the blob of a layer, counted from 0, as its descriptor says it is."""
        descriptor = self.manifest.layers[layer]
        if self._store.content.has(descriptor.digest):
            self._copy(descriptor.digest, write)
        elif descriptor.digest == self.config.diff_ids[layer]:
            self._encode(layer, write)
        else:
            self._store.content.open(descriptor.digest)  # says that it is missing

    def plain(self, layer: int) -> tuple[int, Callable[[Write], None]]:
        """The size of a layer's plain tar, and what writes it."""
        size = self._snapshot(layer).size
        descriptor = self.manifest.layers[layer]
        if descriptor.digest == self.config.diff_ids[layer]:
            return size, partial(self.blob, layer)
        return size, partial(self._decompress, layer)

    def _snapshot(self, layer: int) -> Snapshot:
        chain = chain_id(self.config.diff_ids[: layer + 1])
        return self._store.snapshots.chain(chain)[-1]

    def _copy(self, digest: Digest, write: Write) -> None:
        sha256 = hashlib.sha256()
        with self._store.content.open(digest) as blob:
            while chunk := blob.read(_CHUNK_BYTES):
                sha256.update(chunk)
                write(chunk)
        found = Digest("sha256:" + sha256.hexdigest())
        if found != digest:
            raise BlobDamaged(digest, found)

    def _decompress(self, layer: int, write: Write) -> None:
        with self._store.content.open(self.manifest.layers[layer].digest) as blob:
            stream = Decompressed(blob.read)
            while chunk := stream.read(_CHUNK_BYTES):
                write(chunk)
        if stream.digest != self.config.diff_ids[layer]:
            raise BlobDamaged(self.config.diff_ids[layer], stream.digest)

    def _encode(self, layer: int, write: Write) -> None:
        sha256 = hashlib.sha256()

        def sink(piece: memoryview) -> None:
            sha256.update(piece)
            write(piece)

        store, diff_id = self._store, self.config.diff_ids[layer]
        encode(self._snapshot(layer).path, sink, idmap=store.idmap, userxattr=store.userxattr)
        if sha256.hexdigest() != diff_id.hex:
            raise StoreError(
                f"layer {diff_id.short} changed in the store: its files give "
                f"sha256:{sha256.hexdigest()[:12]} now",
                hint="run the cell that builds it again with --no-cache",
            )
