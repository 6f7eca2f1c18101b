"""The documents an image is made of: descriptors, manifests, indexes and image configs.

Values are read strictly (``ImageError`` names the document and the field) and written in one way.
Fields this module does not know are kept in ``extra`` and written back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from ..errors import ImageError
from ..record import field, record
from .digest import Digest
from .fields import Fields, present
from .image_config import History as History
from .image_config import ImageConfig as ImageConfig
from .platform import Platform as Platform
from .strict_json import canonical, parse

Extra = Mapping[str, Any]


class MediaType:
    """The media types of image-spec, and Docker's older names for the same things."""

    MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    INDEX = "application/vnd.oci.image.index.v1+json"
    CONFIG = "application/vnd.oci.image.config.v1+json"
    LAYER = "application/vnd.oci.image.layer.v1.tar"
    LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"

    MANIFESTS = frozenset((MANIFEST, DOCKER_MANIFEST))
    INDEXES = frozenset((INDEX, DOCKER_LIST))
    CONFIGS = frozenset((CONFIG, DOCKER_CONFIG))
    LAYERS = frozenset(
        (LAYER, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD)
    )


REF_NAME = "org.opencontainers.image.ref.name"


@record
class Descriptor:
    """A blob as others name it: media type, digest, size."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    extra: Extra = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, value: object, what: str) -> Self:
        """Read it out of a parsed document."""
        known = ("mediaType", "digest", "size", "platform", "annotations")
        fields = Fields(value, what, known)
        platform = fields.take("platform")
        digest, size = fields.digest("digest"), fields.number("size")
        _check_unread(fields, digest, size)
        return cls(
            media_type=_media_type(fields),
            digest=digest,
            size=size,
            platform=None if platform is None else Platform.of(platform, f"{what}: platform"),
            annotations=fields.mapping("annotations"),
            extra=fields.rest,
        )

    def fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            **self.extra,
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
            **present(
                {
                    "platform": self.platform.fields() if self.platform else None,
                    "annotations": dict(self.annotations),
                }
            ),
        }


@record
class Manifest:
    """One image: its config and its layers, base first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    media_type: str = MediaType.MANIFEST
    extra: Extra = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, data: bytes, *, media_type: str | None = None) -> Self:
        """Read it; ``media_type`` is what its descriptor says it is.

        Raises:
            ImageError: it is malformed, or could be taken for something else (CVE-2021-41190).
        """
        known = ("schemaVersion", "mediaType", "config", "layers", "annotations", "manifests")
        fields = Fields(parse(data, "manifest"), "manifest", known)
        stated = _check_kind(fields, media_type, MediaType.MANIFESTS, ("manifests", "fsLayers"))
        if "config" not in fields.rest or "layers" not in fields.rest:
            raise ImageError("manifest: it has no config or no layers")
        return cls(
            config=Descriptor.of(fields.take("config"), "manifest: config"),
            layers=tuple(
                Descriptor.of(value, f"manifest: layer {number}")
                for number, value in enumerate(fields.objects("layers"), 1)
            ),
            annotations=fields.mapping("annotations"),
            media_type=stated or media_type or MediaType.MANIFEST,
            extra=fields.rest,
        )

    def to_json(self) -> bytes:
        """Its bytes, always the same."""
        return canonical(
            {
                **self.extra,
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": self.config.fields(),
                "layers": [layer.fields() for layer in self.layers],
                **present({"annotations": dict(self.annotations)}),
            }
        )


@record
class Index:
    """Several images, or one image for several platforms."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    media_type: str = MediaType.INDEX
    extra: Extra = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, data: bytes, *, media_type: str | None = None) -> Self:
        """Read it; ``media_type`` is what its descriptor says it is.

        Raises:
            ImageError: it is malformed, or could be taken for something else (CVE-2021-41190).
        """
        known = ("schemaVersion", "mediaType", "manifests", "annotations", "config", "layers")
        fields = Fields(parse(data, "index"), "index", known)
        stated = _check_kind(fields, media_type, MediaType.INDEXES, ("config", "layers"))
        if "manifests" not in fields.rest:
            raise ImageError("index: it has no manifests")
        return cls(
            manifests=tuple(
                Descriptor.of(value, f"index: manifest {number}")
                for number, value in enumerate(fields.objects("manifests"), 1)
            ),
            annotations=fields.mapping("annotations"),
            media_type=stated or media_type or MediaType.INDEX,
            extra=fields.rest,
        )

    def to_json(self) -> bytes:
        """Its bytes, always the same."""
        return canonical(
            {
                **self.extra,
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "manifests": [manifest.fields() for manifest in self.manifests],
                **present({"annotations": dict(self.annotations)}),
            }
        )


_KNOWN = MediaType.MANIFESTS | MediaType.INDEXES | MediaType.CONFIGS | MediaType.LAYERS
_RESTRICTED_NAME = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # RFC 6838, 4.2
_URI = r"[A-Za-z][A-Za-z0-9+.-]*:\S+"


def _media_type(fields: Fields) -> str:
    text = fields.text("mediaType")
    if text not in _KNOWN and not re.fullmatch(f"{_RESTRICTED_NAME}/{_RESTRICTED_NAME}", text):
        fields.refuse("mediaType", "a media type")
    return text


def _check_unread(fields: Fields, digest: Digest, size: int) -> None:
    """What we pass over, ``urls`` and ``data``, other readers use: it must not mislead them."""
    urls, data = fields.rest.get("urls") or [], fields.rest.get("data")
    if not isinstance(urls, list) or not all(re.fullmatch(_URI, str(url)) for url in urls):
        fields.refuse("urls", "a list of URIs")
    if data is None:
        return
    import binascii  # for those who have it

    try:
        found = binascii.a2b_base64(data, strict_mode=True)
    except (ValueError, TypeError):
        fields.refuse("data", "in base64")
        return
    if len(found) != size or Digest.of(found) != digest:
        raise ImageError(f"{fields.what}: its data is not what its digest says")


def _check_kind(
    fields: Fields, expected: str | None, allowed: frozenset[str], foreign: tuple[str, ...]
) -> str:
    """Check version and media type; returns the media type the document itself states."""
    if fields.take("schemaVersion") != 2:
        raise ImageError(f"{fields.what}: schemaVersion is not 2")
    for key in foreign:
        if key in fields.rest:
            raise ImageError(f"{fields.what}: it also has {key!r}, so it could be two things")
    stated = fields.text("mediaType")
    if stated and stated not in allowed:
        raise ImageError(f"{fields.what}: it says it is {stated!r}")
    if stated and expected and stated != expected:
        raise ImageError(f"{fields.what}: it says it is {stated!r}, its descriptor {expected!r}")
    return stated
