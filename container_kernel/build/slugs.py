"""Slugs: images that are mounted from one file, for those who run them."""

from __future__ import annotations

from pathlib import Path

from ..runtime import slug
from ..runtime.host import Host
from ..store.store import Store
from .events import Image, Layer


def attach(host: Host, store: Store, reference: str, directory: Path) -> Image:
    """The image of a slug (see `runtime.slug`), mounted until this process ends."""
    made = slug.attach(host, store, reference, directory)
    layer = Layer(made.chain_id, made.chain_id, made.size, reference)
    return Image(made.chain_id, made.chain_id, made.config, (layer,))
