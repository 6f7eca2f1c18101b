"""Locking: the lock of what was built, from the journal of the store that built it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from .. import __version__
from ..errors import LockBroken, NoBase
from .events import Image, Layer
from .journal import Journal
from .lock import Lock, LockedStage, LockedStep
from .stages import Stage


def lock_of(images: Mapping[str, Image], stages: Mapping[str, Stage], journal: Journal) -> Lock:
    """The lock of ``stages``, which were all built into ``images``.

    Raises:
        LockBroken: this store does not know what a layer was made of.
        NoBase: nothing was built.
    """
    if not images:
        raise NoBase("no build cell was run yet, so there is nothing to lock")
    locked = {
        name: _stage(stage, images[name], journal)
        for name, stage in stages.items()
        if name in images
    }
    return Lock(locked, os.uname().machine, f"container_kernel {__version__}")


def _stage(stage: Stage, image: Image, journal: Journal) -> LockedStage:
    base = stage.trail.base
    assert base is not None
    steps = tuple(locked_step(layer, journal) for layer in _on(base, image.layers))
    first = image.layers[0]
    packages = journal.of_layer(first) if first.chain_id == base else None
    return LockedStage(stage.base.reference, base, steps, image.digest, tuple(packages or ()))


def _on(base: object, layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """The layers above the base."""
    is_above = False
    for layer in layers:
        if is_above:
            yield layer
        is_above = is_above or layer.chain_id == base


def locked_step(layer: Layer, journal: Journal) -> LockedStep:
    """What a layer was made of.

    Raises:
        LockBroken: this store does not know.
    """
    parts = journal.parts(layer.key)
    inputs = journal.inputs(layer.key, layer.diff_id)
    if inputs is None:
        raise LockBroken(
            f"the store no longer knows what {layer.created_by} was made of",
            hint="build it once more: container-kernel build --no-cache NOTEBOOK",
        )
    kind, meaning = parts["kind"], parts["version"]
    title = " ".join(layer.created_by.split())
    return LockedStep(title, kind, meaning, layer.key, layer.diff_id, layer.size, tuple(inputs))
