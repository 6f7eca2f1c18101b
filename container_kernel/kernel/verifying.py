"""Verifying: build everything once more, in a store of its own, and compare."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build.comparison import FirstDifference, Made, first_difference
from ..build.journal import Journal
from ..build.source import is_made_here
from ..errors import NoBase
from ..record import record
from ..store import layer as layers
from ..store.store import Store

if TYPE_CHECKING:
    from ..build.cancel import Cancel
    from ..build.events import Image, OnEvent
    from ..workbench import Workbench

_SECOND_S = 1.1


@record
class Verdict:
    """What came of it: both images of each stage, and where they part first, if they do."""

    before: Mapping[str, Image]
    after: Mapping[str, Image]
    first: FirstDifference | None
    is_locked: bool
    seconds: float

    @property
    def is_reproducible(self) -> bool:
        """Every stage has the same digest again."""
        return all(image.digest == self.after[name].digest for name, image in self.before.items())

    def to_json(self) -> dict[str, Any]:
        """As ``container-kernel verify --json`` prints it."""
        return {
            "reproducible": self.is_reproducible,
            "locked": self.is_locked,
            "stages": {
                name: {
                    "digest": str(image.digest),
                    "rebuilt": str(self.after[name].digest),
                    "layers": len(image.layers),
                }
                for name, image in self.before.items()
            },
            "first_difference": self.first.to_json() if self.first else None,
            "seconds": round(self.seconds, 3),
        }


def verify(
    workbench: Workbench,
    *,
    on_event: OnEvent,
    cancel: Cancel,
    note: Callable[[str], None],
) -> Verdict:
    """Build all stages once more from nothing.

    Debian packages that are kept by digest are not fetched a second time; nothing else is shared.

    Raises:
        NoBase: nothing was built.
    """
    before = _images(workbench, on_event, cancel)
    if not before:
        raise NoBase("no build cell was run yet, so there is nothing to verify")
    _remove_leftovers(workbench.store)
    home = Path(tempfile.mkdtemp(prefix="verify-", dir=workbench.store.home))
    note("building everything once more, in a store of its own\n")
    started = time.monotonic()
    cancel.pause(_until_another_second(workbench.store, before))
    twin = workbench.twin(home)
    try:
        _lend(workbench, twin)
        _give_packages(workbench.ledger.journal, before, twin.store)
        after = _images(twin, on_event, cancel)
        first = first_difference(
            Made(before, workbench.store, workbench.ledger.journal),
            Made(after, twin.store, twin.ledger.journal),
        )
    finally:
        twin.close()
        twin.store.close()
        shutil.rmtree(home, ignore_errors=True)
    return Verdict(before, after, first, workbench.config.is_locked, time.monotonic() - started)


def _until_another_second(store: Store, images: Mapping[str, Image]) -> float:
    """How long until a step that reads a clock in seconds must read another than it did before."""
    chains = {layer.chain_id for image in images.values() for layer in image.layers}
    frozen = [
        layers.frozen_at(snapshot) for snapshot in map(store.snapshots.get, chains) if snapshot
    ]
    return min(max(0.0, max(frozen, default=0.0) + _SECOND_S - time.time()), _SECOND_S)


def _images(workbench: Workbench, on_event: OnEvent, cancel: Cancel) -> dict[str, Image]:
    return {
        name: workbench.image(name, on_event=on_event, cancel=cancel)
        for name in workbench.stage_names
    }


def _lend(workbench: Workbench, twin: Workbench) -> None:
    """Images that a base names and no cell makes cannot be made again: the twin is shown them."""
    for view in workbench.stages.values():
        digest = workbench.store.find_image(view.base)
        if digest is None or is_made_here(view.base, workbench.config.base_folders):
            continue
        manifest = workbench.store.manifest(digest)
        for blob in (digest, manifest.config.digest):
            twin.store.content.put(workbench.store.content.read(blob))
        config = workbench.store.image_config(manifest)
        for layer in workbench.store.snapshots.chain(workbench.store.image_chain(config)):
            place = twin.store.snapshots.folder / layer.path.parent.name
            if not place.is_symlink():
                place.symlink_to(layer.path.parent)
        twin.store.tags.set(view.base, digest)


def _give_packages(journal: Journal, images: Mapping[str, Image], store: Store) -> None:
    downloads = store.cache_folder("apt")
    for image in images.values():
        for layer in image.layers:
            journal.bring(journal.of_layer(layer) or [], downloads)


def _remove_leftovers(store: Store) -> None:
    """What a verification that was killed left there, once a day has passed."""
    for place in store.home.glob("verify-*"):
        if time.time() - place.stat().st_mtime > 24 * 3600:
            shutil.rmtree(place, ignore_errors=True)
