"""Solve: from a base and steps to a frozen image, running only what is not frozen yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ContainerKernelError
from ..oci.digest import Digest, extend_chain
from ..store import layer as layers
from ..store.disk import disk_errors
from ..store.snapshots import Snapshot
from . import settings
from .cancel import Cancel
from .events import About, Image, Layer, OnEvent, Watch
from .graph import Inputs, key_of, key_parts
from .progress import Numbered, Progress, Trail, reads_files
from .step import Copy, Made, Setting, Step

if TYPE_CHECKING:
    from ..oci.spec import ImageConfig
    from ..store.snapshots import Active
    from .ledger import Ledger
    from .lock import LockedStep
    from .make import Maker
    from .workplace import Workplace


class Solver:
    """Builds chains of steps in one workplace.

    ``stage_chain`` answers which file system a stage has (for ``%copy --from``), building it if
    need be. With ``use_cache`` off, every step runs once more. What was decided is noted in
    ``ledger``, which also says what is locked.
    """

    def __init__(
        self,
        place: Workplace,
        directory: Path,
        stage_chain: Callable[[str], Digest],
        ledger: Ledger,
        *,
        use_cache: bool = True,
    ) -> None:
        self._ledger = ledger
        self._place = place
        self._store = place.store
        self._directory = directory
        self._stage_chain = stage_chain
        self._use_cache = use_cache
        self._kept: str | None = None

    def solve(
        self,
        base: Progress,
        steps: Sequence[Numbered],
        *,
        stage: str,
        total: int,
        trail: Trail,
        shown: Collection[str],
        on_event: OnEvent,
        cancel: Cancel,
    ) -> Progress:
        """Build ``steps`` on ``base``, one event stream for all; ``trail`` is kept up to date.

        Of steps that are as the trail has them only those are told of whose ids are in ``shown``.

        Raises:
            ContainerKernelError: a step failed; the ones before it are frozen.
        """
        progress = base
        trail.start(base)
        known = trail.common([numbered.step for numbered in steps]) if self._use_cache else 0
        if known:
            progress = trail.known[known - 1][1]
            if self._store.snapshots.get(progress.chain_id) is None:
                progress, known = base, 0
        for index, numbered in enumerate(steps):
            if index < known and numbered.step_id not in shown:
                continue
            cancel.check()
            about = About(
                step_id=numbered.step_id,
                stage=stage,
                number=numbered.number,
                total=total,
                title=numbered.step.title,
            )
            if index < known:
                is_setting = isinstance(numbered.step, Setting)
                on_event(about.finished(None if is_setting else trail.known[index][1].layers[-1]))
                continue
            progress = self._one(progress, numbered.step, about, on_event, cancel)
            trail.known[index:] = [(numbered.step, progress.as_cached())]
        return progress

    def image(self, progress: Progress) -> Image:
        """Freeze ``progress`` as an image: its config and manifest are in the store."""
        digest = self._store.put_image(progress.config, progress.descriptors)
        manifest = self._store.manifest(digest)
        return Image(digest, manifest.config.digest, progress.config, progress.layers)

    def _one(
        self, progress: Progress, step: Step, about: About, on_event: OnEvent, cancel: Cancel
    ) -> Progress:
        if isinstance(step, Setting):
            config = settings.apply(progress.config, step)
            on_event(about.finished(None))
            return progress.with_config(config, step.title)
        started = time.monotonic()
        try:
            with disk_errors(self._store.home):
                layer = self._layer(progress, step, about, on_event, cancel)
        except ContainerKernelError as error:
            is_kept = self._kept == about.step_id
            on_event(about.failed(error, time.monotonic() - started, is_kept=is_kept))
            raise
        if self._kept == about.step_id:
            self._settle()
        on_event(about.finished(layer))
        return progress.with_layer(layer)

    def _left(self, about: About, config: ImageConfig, active: Active) -> bool:
        """Keep what a failed step has written, if that can be."""
        from .failures import keep

        is_kept = keep(self._store, about, config, self._place.notebook, active)
        self._kept = about.step_id if is_kept else None
        return is_kept

    def _settle(self) -> None:
        """The step is built that had failed: what it left then may go."""
        from .failures import settle

        settle(self._store, self._kept or "")
        self._kept = None

    def _layer(
        self,
        progress: Progress,
        step: Made,
        about: About,
        on_event: OnEvent,
        cancel: Cancel,
    ) -> Layer:
        inputs = self._inputs(step)
        parts = key_parts(step, progress.chain_id, progress.config, inputs.named, progress.epoch)
        key = key_of(parts)
        locked = self._ledger.locked(about, key, parts)
        found = self._cached(progress, key, step, locked)
        self._ledger.decided(about, key, parts, found, use_cache=self._use_cache)
        if found:
            return found
        on_event(about.started())

        def log(text: str) -> None:
            on_event(about.log(text))

        told: list[bool] = []

        def wait() -> None:
            if not told:
                told.append(True)
                log("another notebook is building this step; waiting for it\n")
            cancel.pause(0.05)

        started = time.monotonic()
        with self._store.building(key, wait):
            found = self._cached(progress, key, step, locked)
            if found:
                return found

            def remember(chain_id: Digest) -> None:
                # Should the layer then not get there, this is a miss: `_cached` looks for it.
                self._store.index.remember_layer(key, chain_id, time.monotonic() - started)

            left = partial(self._left, about, progress.config)
            watch = Watch(log, cancel, remember, left)
            snapshot, taken = self._maker.make(progress, step, locked, inputs, watch)
            seconds = time.monotonic() - started
            layers.add_key(snapshot, key, seconds)
            self._ledger.made(key, parts, snapshot.diff_id, taken)
        self._ledger.check(about, locked, snapshot.diff_id)
        return layer_of(snapshot, step.title, seconds, cached=False, key=key)

    def _cached(
        self, progress: Progress, key: str, step: Step, locked: LockedStep | None
    ) -> Layer | None:
        """The layer of ``key`` that is in the store; of a locked step, the one that is locked."""
        if not self._use_cache:
            return None
        hit = self._store.index.find_layer(key)
        chain_id, seconds = (hit.chain_id, hit.seconds) if hit else (None, 0.0)
        if locked and self._ledger.has_made(key, locked.diff_id):
            chain_id = extend_chain(progress.chain_id, locked.diff_id)
        snapshot = self._store.snapshots.get(chain_id) if chain_id else None
        if snapshot is None or (locked and snapshot.diff_id != locked.diff_id):
            return None
        return layer_of(snapshot, step.title, seconds, cached=True, key=key)

    def _inputs(self, step: Made) -> Inputs:
        """What the step reads, named by content."""
        if isinstance(step, Copy) and step.from_stage:
            chain = str(self._stage_chain(step.from_stage))
            return Inputs(named={" ".join(step.sources): chain})
        if not reads_files(step):
            return Inputs()
        from .reads import inputs  # for those who read any

        return inputs(step, self._directory, self._place.grants.home, self._store.home)

    @cached_property
    def _maker(self) -> Maker:
        from .make import Maker  # with all that runs steps, for the first that is not frozen

        return Maker(self._place, self._directory, self._stage_chain, self._ledger.journal)


def layer_of(
    snapshot: Snapshot, title: str, seconds: float, *, cached: bool, key: str = ""
) -> Layer:
    """The layer that ``snapshot`` is on top of its parents."""
    diff_id, chain_id, size = snapshot.diff_id, snapshot.chain_id, snapshot.size
    return Layer(diff_id, chain_id, size, title, seconds, cached=cached, key=key)
