"""Load: images of OCI layouts, OCI and docker archives, and root file systems, into the store.

Everything is checked before it is used, and by name: each document and layer has the digest, the
size and the media type its descriptor says; a layer unpacks to the diff_id in the image config;
there are as many diff_ids as layers. Of an image that the store has whole, nothing more is read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError
from ..oci.digest import Digest
from ..oci.fields import Fields
from ..oci.reference import Reference
from ..oci.spec import REF_NAME, Descriptor, ImageConfig, Index, Manifest, MediaType
from ..oci.strict_json import MAX_BYTES, parse
from . import rootfs_tar
from .compression import Decompressed
from .intake import (
    LAYER_TYPES,
    MAX_INDEX_DEPTH,
    Intake,
    OnLog,
    check_counts,
    check_image,
    check_types,
    choose,
)
from .referrer import is_referrer
from .source import Archive, Source, open_source

if TYPE_CHECKING:
    from ..store.store import Store

Named = tuple[str | None, Digest]

_MAX_DOCKER_MANIFEST_BYTES = 1 << 20
_CONTAINERD_NAME = "io.containerd.image.name"


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
            if isinstance(source, Archive) and rootfs_tar.looks_like_one(source.names):
                return [(None, rootfs_tar.take(path, store))]
    except ImageError as error:
        raise ImageError(f"{path.name}: {error.message}", hint=error.hint) from error
    raise ImageError(
        f"{path.name} is neither an OCI layout nor a docker archive nor a root file system"
    )


class _Layout:
    """An OCI image layout, in a folder or in an archive."""

    def __init__(self, source: Source, store: Store, log: OnLog, path: Path) -> None:
        self._source = source
        self._store = store
        self._intake = Intake(store, log)
        self._stem = path.name.partition(".")[0].lower()

    def images(self) -> Iterator[Named]:
        check_layout(self._read("oci-layout"))
        index = Index.from_json(self._read("index.json"))
        images = [one for one in index.manifests if not is_referrer(one)]
        if not images:
            raise ImageError("it holds no image")
        for descriptor in images:
            yield self._name(descriptor), self._image(descriptor, 0)

    def _image(self, descriptor: Descriptor, depth: int) -> Digest:
        if descriptor.media_type in MediaType.INDEXES:
            if depth == MAX_INDEX_DEPTH:
                raise ImageError(f"its indexes are nested more than {MAX_INDEX_DEPTH} deep")
            data = self._blob(descriptor, "index")
            index = Index.from_json(data, media_type=descriptor.media_type)
            return self._image(choose(index), depth + 1)
        if descriptor.media_type not in MediaType.MANIFESTS:
            raise ImageError(f"its index lists a {descriptor.media_type!r}, which is no image")
        data = self._blob(descriptor, "manifest")
        manifest = Manifest.from_json(data, media_type=descriptor.media_type)
        check_types(manifest)
        config = self._blob(manifest.config, "image config")
        # All cheap checks come before the first layer is copied.
        check_image(manifest, ImageConfig.from_json(config))
        if self._intake.has(descriptor.digest, manifest):
            return descriptor.digest
        return self._intake.put(data, manifest, config, self._take)

    def _take(self, layer: Descriptor) -> None:
        with self._source.open(_blob_name(layer.digest)) as stream:
            self._store.content.put(stream, expected=layer.digest, size=layer.size)

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
        self._intake = Intake(store, log)

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
        check_counts(len(layer_names), config)
        described = Descriptor(MediaType.CONFIG, Digest.of(config_data), len(config_data))
        manifest = Manifest(described, tuple(self._layer(name) for name in layer_names))
        return self._intake.put(manifest.to_json(), manifest, config_data)

    def _layer(self, name: str) -> Descriptor:
        with self._source.open(name) as stream:
            compression = Decompressed(stream.read).compression
        with self._source.open(name) as stream:
            blob = self._store.content.put(stream)
        return Descriptor(LAYER_TYPES[compression], blob.digest, blob.size)

    def _read(self, name: str, limit: int) -> bytes:
        with self._source.open(name) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise ImageError(f"{name} is longer than {limit >> 20} MiB")
        return data


def check_layout(data: bytes) -> None:
    """Refuse a layout that ``oci-layout`` says is none, or one of another version."""
    version = Fields(parse(data, "oci-layout"), "oci-layout")
    if not version.text("imageLayoutVersion").startswith("1."):
        raise ImageError("oci-layout: its version is not 1")


def _blob_name(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _valid_name(name: str) -> str | None:
    try:
        return str(Reference.parse(name).with_default_tag())
    except ImageError:
        return None
