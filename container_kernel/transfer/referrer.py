"""Referrer: a document about an image, kept with it in an OCI layout.

A manifest of its own whose ``subject`` is the image (image-spec 1.1, "Guidelines for Artifact
Usage"). In a layout it is listed in ``index.json`` beside the image, without a name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ImageError
from ..oci.digest import Digest
from ..oci.spec import Descriptor, Index, Manifest
from ..record import replace

EMPTY = "application/vnd.oci.empty.v1+json"


def attach(
    layout: Path, subject: Digest, media_type: str, document: bytes, annotations: Mapping[str, str]
) -> Digest:
    """Add ``document`` to the layout at ``layout`` as a referrer of the image ``subject``.

    The index names it last, when all it names is there. The same document again changes nothing.

    Raises:
        ImageError: the layout does not have that image.
    """
    index = Index.from_json((layout / "index.json").read_bytes())
    image = next((one for one in index.manifests if one.digest == subject), None)
    if image is None:
        raise ImageError(f"the layout {layout} does not have the image {subject.short}")
    about = replace(image, annotations={}, platform=None)
    manifest = Manifest(
        config=_put(layout, EMPTY, b"{}"),
        layers=(_put(layout, media_type, document),),
        annotations=annotations,
        extra={"artifactType": media_type, "subject": about.fields()},
    )
    made = replace(
        _put(layout, manifest.media_type, manifest.to_json()), extra={"artifactType": media_type}
    )
    if made.digest not in {one.digest for one in index.manifests}:
        wider = replace(index, manifests=(*index.manifests, made))
        draft = layout / ".index.json"
        draft.write_bytes(wider.to_json())
        draft.rename(layout / "index.json")
    return made.digest


def is_referrer(descriptor: Descriptor) -> bool:
    """Whether it names a document about an image rather than an image."""
    return "artifactType" in descriptor.extra


def _put(layout: Path, media_type: str, data: bytes) -> Descriptor:
    digest = Digest.of(data)
    path = layout / "blobs/sha256" / digest.hex
    if not path.exists():
        draft = path.with_name(f".{digest.hex}")
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    return Descriptor(media_type=media_type, digest=digest, size=len(data))
