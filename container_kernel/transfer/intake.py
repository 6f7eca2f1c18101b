"""Intake: the parts of a foreign image, checked and made an image of the store.

Everything is checked before it is used, and by name. A manifest is stored last, so an image is
either whole or not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ImageError
from ..oci.digest import Digest, extend_chain
from ..oci.spec import Descriptor, ImageConfig, Index, Manifest, MediaType, Platform
from ..record import record
from ..store.reach import Parts
from .compression import GZIP, NONE, ZSTD
from .restore import guard
from .stack import Layer, Stack

if TYPE_CHECKING:
    from ..store.store import Store

OnLog = Callable[[str], None]

MAX_LAYERS = 500
MAX_INDEX_DEPTH = 4
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
COMPRESSION = {
    MediaType.LAYER: NONE,
    MediaType.LAYER_GZIP: GZIP,
    MediaType.LAYER_ZSTD: ZSTD,
    MediaType.DOCKER_LAYER: NONE,
    MediaType.DOCKER_LAYER_GZIP: GZIP,
    MediaType.DOCKER_LAYER_ZSTD: ZSTD,
}
LAYER_TYPES = {NONE: MediaType.LAYER, GZIP: MediaType.LAYER_GZIP, ZSTD: MediaType.LAYER_ZSTD}


def host_platform() -> Platform:
    """What this host runs."""
    machine = os.uname().machine
    return Platform(_ARCHITECTURES.get(machine, machine), "linux")


@record(frozen=False)
class Intake:
    """Makes one image of the store at a time."""

    store: Store
    log: OnLog

    def has(self, digest: Digest, manifest: Manifest) -> bool:
        """True when the store has the image whole: documents, blobs and trees."""
        content, snapshots = self.store.content, self.store.snapshots
        if not (content.has(digest) and content.has(manifest.config.digest)):
            return False
        config = self.store.image_config(manifest)
        chain: Digest | None = None
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            chain = extend_chain(chain, diff_id)
            if snapshots.get(chain) is None or not content.has(layer.digest):
                return False
        return True

    def put(
        self,
        manifest_data: bytes,
        manifest: Manifest,
        config_data: bytes,
        fetch: Callable[[Descriptor], object] = lambda _: None,
    ) -> Digest:
        """Unpack what ``manifest`` lists, then store the documents.

        ``fetch`` brings a layer's blob into the store, if that was not done before.
        """
        config = ImageConfig.from_json(config_data)
        check_image(manifest, config)
        created_by = _created_by(config)
        guard(self.store, _parts(Digest.of(manifest_data), manifest, config))
        with Stack(self.store) as stack:
            pairs = zip(manifest.layers, config.diff_ids, strict=True)
            for number, (blob, diff_id) in enumerate(pairs, 1):
                self.log(f"layer {number} of {len(manifest.layers)}: {blob.size} bytes\n")
                fetch(blob)
                compression = COMPRESSION[blob.media_type]
                stack.add(Layer(number, blob, compression, diff_id, created_by.get(number, "")))
            stack.finish()
        self.store.content.put(config_data)
        self.store.content.put(manifest_data)
        return Digest.of(manifest_data)


def choose(index: Index) -> Descriptor:
    """The one image of an index that is for this host."""
    wanted = host_platform()
    found = []
    for descriptor in index.manifests:
        platform = descriptor.platform
        if platform is None or (platform.os, platform.architecture) == (
            wanted.os,
            wanted.architecture,
        ):
            return descriptor
        found.append(str(platform))
    raise ImageError(f"it is for {', '.join(found) or 'nothing'}; this host is {wanted}")


def check_types(manifest: Manifest) -> None:
    if manifest.config.media_type not in MediaType.CONFIGS:
        raise ImageError(f"it is no image: its config is a {manifest.config.media_type!r}")
    for number, layer in enumerate(manifest.layers, 1):
        if layer.media_type not in COMPRESSION:
            raise ImageError(
                f"layer {number} is a {layer.media_type!r}; layers are plain, gzip or zstd tars"
            )


def check_image(manifest: Manifest, config: ImageConfig) -> None:
    check_counts(len(manifest.layers), config)
    wanted = host_platform()
    if (config.os, config.architecture) != (wanted.os, wanted.architecture):
        raise ImageError(f"it is for {config.platform}; this host is {wanted}")


def check_counts(layer_count: int, config: ImageConfig) -> None:
    if layer_count != len(config.diff_ids):
        raise ImageError(
            f"it has {layer_count} layers, its config lists {len(config.diff_ids)} diff_ids"
        )
    if not 0 < layer_count <= MAX_LAYERS:
        raise ImageError(f"it has {layer_count} layers; 1 to {MAX_LAYERS} can be used")


def _parts(digest: Digest, manifest: Manifest, config: ImageConfig) -> Parts:
    return Parts(digest, manifest.config, manifest.layers, tuple(config.diff_ids))


def _created_by(config: ImageConfig) -> dict[int, str]:
    """What made each layer, by its number, where the history tells."""
    made = [entry.created_by for entry in config.history if not entry.empty_layer]
    return dict(enumerate(made, 1)) if len(made) == len(config.diff_ids) else {}
