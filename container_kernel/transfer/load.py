"""Load: images of an OCI layout, an OCI archive or a docker archive become images of the store.

Everything is checked before it is used, and by name: each document and layer has the digest, the
size and the media type its descriptor says; a layer unpacks to the diff_id in the image config;
there are as many diff_ids as layers. A manifest is stored last, so an image is either whole or
not there.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError
from ..oci.digest import Digest, extend_chain
from ..oci.fields import Fields
from ..oci.reference import Reference
from ..oci.spec import REF_NAME, Descriptor, ImageConfig, Index, Manifest, MediaType, Platform
from ..oci.strict_json import MAX_BYTES, parse
from ..record import record
from .compression import GZIP, NONE, ZSTD, Decompressed
from .source import Source, open_source
from .unpack import unpack_layer

if TYPE_CHECKING:
    from ..store.store import Store

OnLog = Callable[[str], None]
Named = tuple[str | None, Digest]

MAX_LAYERS = 500
_MAX_INDEX_DEPTH = 4
_MAX_DOCKER_MANIFEST_BYTES = 1 << 20
_CONTAINERD_NAME = "io.containerd.image.name"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPRESSION = {
    MediaType.LAYER: NONE,
    MediaType.LAYER_GZIP: GZIP,
    MediaType.LAYER_ZSTD: ZSTD,
    MediaType.DOCKER_LAYER: NONE,
    MediaType.DOCKER_LAYER_GZIP: GZIP,
    MediaType.DOCKER_LAYER_ZSTD: ZSTD,
}
_LAYER_TYPES = {NONE: MediaType.LAYER, GZIP: MediaType.LAYER_GZIP, ZSTD: MediaType.LAYER_ZSTD}


def load(path: Path, store: Store, *, on_log: OnLog | None = None) -> list[Named]:
    """Read every image in ``path`` into ``store``; returns (name or None, manifest digest) each.

    Naming them in the store is left to the caller.

    Raises:
        ImageError: anything in it is not what it must be.
        StoreError: the disk is full.
    """
    log = on_log or (lambda _: None)
    try:
        with open_source(path, store.home) as source:
            if source.has("index.json"):
                return list(_Layout(source, store, log, path).images())
            if source.has("manifest.json"):
                return list(_DockerArchive(source, store, log).images())
    except ImageError as error:
        raise ImageError(f"{path.name}: {error.message}", hint=error.hint) from error
    raise ImageError(f"{path.name} is neither an OCI layout nor a docker archive")


def host_platform() -> Platform:
    """What this host runs."""
    machine = os.uname().machine
    return Platform(_ARCHITECTURES.get(machine, machine), "linux")


@record(frozen=False)
class _Import:
    """Makes one image of the store at a time."""

    source: Source
    store: Store
    log: OnLog

    def put(self, manifest_data: bytes, manifest: Manifest, config_data: bytes) -> Digest:
        """Unpack what ``manifest`` lists, then store the documents; layer blobs are stored."""
        config = ImageConfig.from_json(config_data)
        _check_image(manifest, config)
        created_by = _created_by(config)
        chain: Digest | None = None
        for number, (layer, diff_id) in enumerate(
            zip(manifest.layers, config.diff_ids, strict=True), 1
        ):
            self.log(f"layer {number} of {len(manifest.layers)}: {layer.size} bytes\n")
            try:
                chain = self._layer(chain, layer, diff_id, created_by.get(number, ""))
            except ImageError as error:
                text = f"layer {number} ({layer.digest.short}): {error.message}"
                raise ImageError(text, hint=error.hint) from error
        self.store.content.put(config_data)
        self.store.content.put(manifest_data)
        return Digest.of(manifest_data)

    def _layer(
        self, parent: Digest | None, layer: Descriptor, diff_id: Digest, created_by: str
    ) -> Digest:
        compression = _COMPRESSION[layer.media_type]
        if compression == NONE and layer.digest != diff_id:
            raise ImageError(f"it is {layer.digest.short}, the image config says {diff_id.short}")
        snapshots = self.store.snapshots
        chain = extend_chain(parent, diff_id)
        blob = self.store.content.path(layer.digest)
        if snapshots.get(chain) is not None:
            if compression != NONE:
                self._unpack(blob, None, diff_id, compression, [])
            return chain
        below = [snapshot.path for snapshot in reversed(snapshots.chain(parent))]
        active = snapshots.prepare(parent)
        try:
            size = self._unpack(blob, active.upper, diff_id, compression, below)
            return snapshots.commit(active, diff_id, size, created_by).chain_id
        except BaseException:
            snapshots.remove(active)
            raise

    def _unpack(
        self, blob: Path, target: Path | None, diff_id: Digest, compression: str, below: list[Path]
    ) -> int:
        return unpack_layer(
            blob,
            target,
            diff_id=diff_id,
            compression=compression,
            idmap=self.store.idmap,
            userxattr=self.store.userxattr,
            parents=below,
        ).size


class _Layout:
    """An OCI image layout, in a folder or in an archive."""

    def __init__(self, source: Source, store: Store, log: OnLog, path: Path) -> None:
        self._source = source
        self._store = store
        self._import = _Import(source, store, log)
        self._stem = path.name.partition(".")[0].lower()

    def images(self) -> Iterator[Named]:
        version = Fields(parse(self._read("oci-layout"), "oci-layout"), "oci-layout")
        if not version.text("imageLayoutVersion").startswith("1."):
            raise ImageError("oci-layout: its version is not 1")
        index = Index.from_json(self._read("index.json"))
        if not index.manifests:
            raise ImageError("it holds no image")
        for descriptor in index.manifests:
            yield self._name(descriptor), self._image(descriptor, 0)

    def _image(self, descriptor: Descriptor, depth: int) -> Digest:
        if descriptor.media_type in MediaType.INDEXES:
            if depth == _MAX_INDEX_DEPTH:
                raise ImageError(f"its indexes are nested more than {_MAX_INDEX_DEPTH} deep")
            data = self._blob(descriptor, "index")
            index = Index.from_json(data, media_type=descriptor.media_type)
            return self._image(_choose(index), depth + 1)
        if descriptor.media_type not in MediaType.MANIFESTS:
            raise ImageError(f"its index lists a {descriptor.media_type!r}, which is no image")
        data = self._blob(descriptor, "manifest")
        manifest = Manifest.from_json(data, media_type=descriptor.media_type)
        _check_types(manifest)
        config = self._blob(manifest.config, "image config")
        # All cheap checks come before the first layer is copied.
        _check_image(manifest, ImageConfig.from_json(config))
        for layer in manifest.layers:
            with self._source.open(_blob_name(layer.digest)) as stream:
                self._store.content.put(stream, expected=layer.digest, size=layer.size)
        return self._import.put(data, manifest, config)

    def _blob(self, descriptor: Descriptor, what: str) -> bytes:
        if descriptor.size > MAX_BYTES:
            raise ImageError(f"{what} is longer than {MAX_BYTES >> 20} MiB")
        data = self._read(_blob_name(descriptor.digest))
        if len(data) != descriptor.size:
            raise ImageError(
                f"{what} {descriptor.digest.short} has another size than the "
                f"{descriptor.size} bytes its descriptor says"
            )
        if (found := Digest.of(data)) != descriptor.digest:
            raise ImageError(f"{what} {descriptor.digest.short} hashes to {found.short}")
        return data

    def _read(self, name: str) -> bytes:
        with self._source.open(name) as stream:
            return stream.read(MAX_BYTES + 1)

    def _name(self, descriptor: Descriptor) -> str | None:
        whole = descriptor.annotations.get(_CONTAINERD_NAME)
        name = whole or descriptor.annotations.get(REF_NAME, "")
        is_tag_only = not whole and not any(sign in name for sign in "/:@")
        return _valid_name(f"{self._stem}:{name}" if is_tag_only else name)


class _DockerArchive:
    """What ``docker save`` writes: configs and plain layer tars, listed by ``manifest.json``."""

    def __init__(self, source: Source, store: Store, log: OnLog) -> None:
        self._source = source
        self._store = store
        self._import = _Import(source, store, log)

    def images(self) -> Iterator[Named]:
        data = self._read("manifest.json", _MAX_DOCKER_MANIFEST_BYTES)
        listed = parse(b'{"images":' + data + b"}", "manifest.json")["images"]
        if not isinstance(listed, list) or not listed:
            raise ImageError("manifest.json is not a list of images")
        for value in listed:
            fields = Fields(value, "manifest.json", ("Config", "RepoTags", "Layers"))
            names = fields.texts("RepoTags")
            digest = self._image(fields.text("Config"), fields.texts("Layers"))
            for name in names or (None,):
                yield _valid_name(name) if name else None, digest

    def _image(self, config_name: str, layer_names: tuple[str, ...]) -> Digest:
        config_data = self._read(config_name, MAX_BYTES)
        stem = posixpath.basename(config_name).removesuffix(".json")
        if len(stem) == 64 and Digest.of(config_data).hex != stem:
            raise ImageError(f"image config {config_name} hashes to another name")
        config = ImageConfig.from_json(config_data)
        _check_counts(len(layer_names), config)
        manifest = Manifest(
            config=Descriptor(MediaType.CONFIG, Digest.of(config_data), len(config_data)),
            layers=tuple(self._layer(name) for name in layer_names),
        )
        return self._import.put(manifest.to_json(), manifest, config_data)

    def _layer(self, name: str) -> Descriptor:
        with self._source.open(name) as stream:
            compression = Decompressed(stream.read).compression
        with self._source.open(name) as stream:
            blob = self._store.content.put(stream)
        return Descriptor(_LAYER_TYPES[compression], blob.digest, blob.size)

    def _read(self, name: str, limit: int) -> bytes:
        with self._source.open(name) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise ImageError(f"{name} is longer than {limit >> 20} MiB")
        return data


def _choose(index: Index) -> Descriptor:
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


def _check_types(manifest: Manifest) -> None:
    if manifest.config.media_type not in MediaType.CONFIGS:
        raise ImageError(f"it is no image: its config is a {manifest.config.media_type!r}")
    for number, layer in enumerate(manifest.layers, 1):
        if layer.media_type not in _COMPRESSION:
            raise ImageError(
                f"layer {number} is a {layer.media_type!r}; layers are plain, gzip or zstd tars"
            )


def _check_image(manifest: Manifest, config: ImageConfig) -> None:
    _check_counts(len(manifest.layers), config)
    wanted = host_platform()
    if (config.os, config.architecture) != (wanted.os, wanted.architecture):
        raise ImageError(f"it is for {config.platform}; this host is {wanted}")


def _check_counts(layer_count: int, config: ImageConfig) -> None:
    if layer_count != len(config.diff_ids):
        raise ImageError(
            f"it has {layer_count} layers, its config lists {len(config.diff_ids)} diff_ids"
        )
    if not 0 < layer_count <= MAX_LAYERS:
        raise ImageError(f"it has {layer_count} layers; 1 to {MAX_LAYERS} can be used")


def _created_by(config: ImageConfig) -> dict[int, str]:
    """What made each layer, by its number, where the history tells."""
    made = [entry.created_by for entry in config.history if not entry.empty_layer]
    return dict(enumerate(made, 1)) if len(made) == len(config.diff_ids) else {}


def _blob_name(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _valid_name(name: str) -> str | None:
    try:
        return str(Reference.parse(name).with_default_tag())
    except ImageError:
        return None
