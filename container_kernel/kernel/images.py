"""Images: what the magics and the command line do with the images of a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..build.events import Image, Layer
from ..display.images import Named
from ..errors import BadArguments, CellError, ImageError, StoreError
from ..oci.digest import Digest
from .arguments import nearest

if TYPE_CHECKING:
    from ..oci.reference import Reference
    from ..store.store import Store

_NAME = re.compile(
    r"([a-z0-9]+([.-][a-z0-9]+)*:\d{1,5}/)?"  # a registry with a port
    r"[a-z0-9]+([._/-]+[a-z0-9]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
)


def find(store: Store, reference: str) -> Digest:
    """The manifest digest of a name, a digest or the beginning of one.

    Raises:
        CellError: the store has no such image.
    """
    if digest := store.find_image(reference):
        return digest
    near = nearest(reference, list(store.tags.list()))
    hint = f"is it {near[0]}?" if near else "list the images there are: %images"
    raise CellError(f"no image called {reference!r}", hint=hint)


def image(store: Store, digest: Digest) -> Image:
    """The image of that manifest, with what the store knows of its layers."""
    manifest = store.manifest(digest)
    config = store.image_config(manifest)
    chain = store.snapshots.chain(store.image_chain(config))
    layers = (Layer(s.diff_id, s.chain_id, s.size, s.created_by) for s in chain)
    return Image(digest, manifest.config.digest, config, tuple(layers))


def named(store: Store) -> list[Named]:
    """Every name in the store, sorted; a damaged image hides no other."""
    return [_named(store, name, digest) for name, digest in store.tags.list().items()]


def _named(store: Store, name: str, digest: Digest) -> Named:
    try:
        layers = image(store, digest).layers
    except (ImageError, StoreError):
        return Named(name, str(digest), None, None)
    return Named(name, str(digest), len(layers), sum(layer.size for layer in layers))


def names_of(store: Store, digest: Digest) -> list[str]:
    """The names that mean the image ``digest``."""
    return [name for name, meant in store.tags.list().items() if meant == digest]


def full_name(name: str) -> str:
    """``name`` with its tag, ``latest`` if it has none.

    Raises:
        BadArguments: it cannot be the name of an image.
    """
    if not _NAME.fullmatch(name):
        raise BadArguments(
            f"{name!r} cannot be the name of an image",
            hint="write it like iris:1.0, in lower case letters, digits and . _ - /",
        )
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def name_of(reference: Reference) -> str | None:
    """The name an image pulled as ``reference`` gets here; None where only its digest was given."""
    return f"{reference.repository}:{reference.tag}" if reference.tag else None


def tag(store: Store, digest: Digest, name: str) -> str:
    """Give an image a name; return the name in full."""
    full = full_name(name)
    store.tags.set(full, digest)
    return full


def remove(store: Store, names: Iterable[str]) -> list[str]:
    """Forget names; the layers stay until they are collected.

    Raises:
        CellError: one of them is no name in the store; then none is removed.
    """
    known = store.tags.list()
    found = []
    for name in names:
        match = next((full for full in (name, f"{name}:latest") if full in known), None)
        if match is None:
            near = nearest(name, list(known))
            hint = f"is it {near[0]}?" if near else "list the images there are: %images"
            raise CellError(f"no image is called {name!r}", hint=hint)
        found.append(match)
    for name in found:
        store.tags.remove(name)
    return found


def save(
    store: Store,
    digest: Digest,
    path: Path,
    form: str = "oci-archive",
    name: str | None = None,
    *,
    layer: int = 0,
) -> None:
    """Write an image to ``path``, under ``name`` or the first of its names.

    A slug may have only the n-th ``layer`` of it.
    """
    from ..runtime import slug

    if form in slug.FORMATS:
        slug.make(store, digest, path, form, layer=layer)
        return
    if layer:
        raise BadArguments("only a slug has one layer alone", hint="add --format sqfs")
    from ..transfer import archive

    names = names_of(store, digest)
    asked = next((full for full in (name, f"{name}:latest") if full in names), None)
    archive.save(digest, path, form, store=store, ref=asked or next(iter(names), None))


def load(
    store: Store,
    path: Path,
    name: str | None = None,
    *,
    on_log: Callable[[str], None] | None = None,
) -> list[tuple[str | None, Digest]]:
    """Read the images of an archive or layout into the store and name them.

    A name in the file that is none here is left out: the file is anybody's.

    Raises:
        CellError: ``name`` is given and there are several.
    """
    from ..transfer.load import load as load_images

    if name is not None:
        full_name(name)
    found = load_images(path, store, on_log=on_log)
    if name is not None:
        if len(found) != 1:
            raise CellError(f"{path.name} has {len(found)} images: --as can name only one")
        found = [(name, found[0][1])]
    return [
        (tag(store, digest, known) if known and _NAME.fullmatch(known) else None, digest)
        for known, digest in found
    ]
