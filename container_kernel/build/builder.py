"""Builder: a stage's base and cells, solved into an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ContainerKernelError
from ..oci.digest import Digest
from ..store.disk import disk_errors
from ..store.snapshots import Active
from .cancel import Cancel
from .events import About, Event, Image, Layer, OnEvent, StepFailed, StepStarted
from .progress import Progress
from .solve import Solver
from .source import Bases, epoch_of
from .stages import ALL, Stage

if TYPE_CHECKING:
    from .ledger import Ledger
    from .registries import Registries
    from .workplace import Workplace


class Builder:
    """Builds for one notebook, whose folder is ``directory``.

    ``other_notebook`` builds a notebook that is a base, ``stage_chain`` gives the file system of
    another stage.
    """

    def __init__(
        self,
        place: Workplace,
        directory: Path,
        base_folders: Sequence[Path],
        ledger: Ledger,
        registries: Registries,
        *,
        use_cache: bool,
        other_notebook: Callable[[Path], Progress],
        stage_chain: Callable[[str], Digest],
    ) -> None:
        self._store = place.store
        self._solver = Solver(place, directory, stage_chain, ledger, use_cache=use_cache)
        self.ledger = ledger
        self._bases = Bases(place, base_folders, directory, other_notebook, registries)

    def solve(self, stage: Stage, until: str | None, on_event: OnEvent, cancel: Cancel) -> bool:
        """Build the stage up to the cell ``until`` (or whole); keep what is built if it is whole.

        Of cells other than ``until`` only steps that really run are told of; with `ALL` every step
        is. Returns whether it is whole.
        """
        numbered, last = stage.steps(until)
        mine = f"{until}/"
        own = {one.step_id for one in numbered if until == ALL or one.step_id.startswith(mine)}
        base_is_own = until == ALL or (until is not None and stage.position(until) == 0)
        total = sum(len(cell.steps) for cell in stage.cells)
        told: set[str] = set()

        def filtered(event: Event) -> None:
            is_own = event.step_id in own or (base_is_own and event.step_id == f"{stage.name}/base")
            if isinstance(event, (StepStarted, StepFailed)):
                told.add(event.step_id)
            if is_own or event.step_id in told:
                on_event(event)

        progress = self._base(stage, total, filtered, cancel)
        self.ledger.check_base(stage, progress.chain_id)
        try:
            progress = self._solver.solve(
                progress,
                numbered,
                stage=stage.name,
                total=total,
                trail=stage.trail,
                shown=own,
                on_event=filtered,
                cancel=cancel,
            )
        finally:
            self.ledger.save()
        if last:
            stage.progress, stage.image = progress, None
        return last

    def image(self, progress: Progress) -> Image:
        """What was built, as an image that is in the store."""
        return self._solver.image(progress)

    def make_base(self, reference: str, cancel: Cancel) -> Image:
        """The image of anything that ``%base`` takes."""
        return self._solver.image(self._bases.make(reference, lambda _: None, cancel))

    def freeze(self, image: Image, active: Active, title: str) -> Image:
        """Freeze ``active`` as one more layer on ``image``."""
        from ..oci.changeset import Clamp
        from .execute import freeze  # for those who freeze

        progress = self.progress_of(image)
        snapshot = freeze(self._store, active, title, Clamp(0, progress.epoch))
        layer = Layer(snapshot.diff_id, snapshot.chain_id, snapshot.size, title, cached=False)
        return self._solver.image(progress.with_layer(layer))

    def progress_of(self, image: Image) -> Progress:
        """Where building on ``image`` begins."""
        manifest = self._store.manifest(image.digest)
        return Progress(image.config, manifest.layers, image.layers, epoch_of(image.config))

    def _base(self, stage: Stage, total: int, on_event: OnEvent, cancel: Cancel) -> Progress:
        about = About(
            step_id=f"{stage.name}/base",
            stage=stage.name,
            number=0,
            total=total,
            title=stage.base.title,
        )
        started = time.monotonic()
        try:
            locked = self.ledger.stage(stage.name)
            progress = self._bases.cached(stage.base.reference, locked)
            if progress is None:
                on_event(about.started())
                with disk_errors(self._store.home):
                    progress = self._bases.make(
                        stage.base.reference, lambda text: on_event(about.log(text)), cancel, locked
                    )
        except ContainerKernelError as error:
            on_event(about.failed(error, time.monotonic() - started))
            raise
        on_event(about.finished(progress.layers[-1]))
        return progress
