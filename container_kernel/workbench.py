"""Workbench: one notebook's stages, images and containers.

The façade that a kernel and the command line drive. It knows cells only as identities with steps:
a cell that is run again replaces itself in its stage's chain; what follows it is stale and solved
again before the next run cell. Everything here is synchronous and meant for one thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .build import site
from .build.cancel import Cancel
from .build.events import About, Event, Image, Layer, OnEvent, StepFailed, StepStarted
from .build.execute import Workplace, freeze
from .build.notebook_file import code_cells, identity_of, order_of
from .build.progress import Progress
from .build.solve import Solver
from .build.source import Bases, epoch_of
from .build.stages import Stage, Stages
from .build.step import Items, Use
from .errors import CellError, ContainerKernelError, NoBase
from .oci.changeset import Clamp
from .oci.digest import Digest
from .record import record
from .runtime import sweeper
from .runtime.bundle import Limits
from .runtime.host import Host
from .runtime.live import Live, Wish
from .runtime.namespace import Namespace
from .store.snapshots import disk_errors
from .store.store import Store

if TYPE_CHECKING:
    from .config import Config

Parse = Callable[[str], Items | Use | None]
"""What a cell's text means to someone who only builds; None when that is nothing."""


@record
class StageView:
    """What one stage looks like. ``image`` is None until it was built once."""

    name: str
    base: str
    image: Image | None
    is_stale: bool


class Workbench:
    """Everything one notebook builds and runs. ``directory`` is its folder.

    ``notebook`` is its file, when it has one: the order of its cells places new ones, and what
    was built is remembered under its path. ``parse`` reads cells of other notebooks.
    """

    def __init__(
        self,
        config: Config,
        namespace: Namespace,
        directory: Path,
        *,
        parse: Parse,
        notebook: Path | None = None,
        use_cache: bool = True,
        _above: tuple[Path, ...] = (),
        _host: Host | None = None,
        _store: Store | None = None,
    ) -> None:
        self.config = config
        self.host = _host or Host.open(namespace, config.oci_runtime)
        self.store = _store or Store(config.home, namespace.idmap, userxattr=namespace.is_rootless)
        self._namespace = namespace
        self._directory = directory
        self._notebook = notebook
        self._parse = parse
        self._use_cache = use_cache
        self._above = _above
        self._stages = Stages()
        self._lives: dict[str, Live] = {}
        self._place: Workplace | None = None
        self._on_event: OnEvent = lambda _: None
        self._cancel: Cancel | None = None

    # ------------------------------------------------------------ building

    @property
    def current(self) -> str | None:
        """The stage that run cells go to; None before any base."""
        return self._stages.current

    @property
    def stages(self) -> dict[str, StageView]:
        """All stages, in the order they were started."""
        return {
            name: StageView(name, stage.base.reference, stage.image, stage.is_stale)
            for name, stage in self._stages.by_name.items()
        }

    def build(
        self,
        cell_id: str | None,
        code: str,
        items: Items,
        *,
        order: Sequence[str] | None = None,
        deleted: Sequence[str] = (),
        on_event: OnEvent,
        cancel: Cancel,
    ) -> None:
        """Put a build cell in its place and build up to and including it.

        When it fails, the stage is as it was before: nothing that was frozen is lost.

        Raises:
            CellError: the cell's own mistake, a failed step among them.
            NoBase: it has steps and there is no stage for them.
        """
        before = self._stages.copy()
        for gone in deleted:
            self._stages.forget(gone)
        identity = identity_of(cell_id, code)
        stage = self._stages.put(identity, code, items, order)
        try:
            self._solve(stage, identity, on_event, cancel)
        except BaseException:
            self._stages = before
            raise
        self._stages.current = stage.name
        self._remember()

    def use(self, stage: str) -> None:
        """Send the cells that follow to ``stage``.

        Raises:
            CellError: there is no such stage.
        """
        self._stages.current = self._stages.find(stage).name
        self._remember()

    def image(self, stage: str | None = None, *, on_event: OnEvent, cancel: Cancel) -> Image:
        """The image of a stage (the current one), with whatever was stale built again.

        Raises:
            NoBase: there is no stage yet.
        """
        found = self._stages.find(stage)
        if found.is_stale:
            self._solve(found, None, on_event, cancel)
        assert found.image is not None
        return found.image

    # ------------------------------------------------------------ running

    def live(self, stage: str | None = None, *, on_event: OnEvent, cancel: Cancel) -> Live:
        """The container context of a stage's current image.

        While the image is the same, so is the object; when the image changed, the old one is
        closed, with the processes in it, and a new one takes its place.
        """
        image = self.image(stage, on_event=on_event, cancel=cancel)
        name = self._stages.find(stage).name
        live = self._lives.get(name)
        if live is not None and live.chain_id == image.chain_id:
            return live
        if live is not None:
            self._lives.pop(name).close()
        self._lives[name] = self.fresh(image)
        return self._lives[name]

    def fresh(self, image: Image, wish: Wish | None = None) -> Live:
        """A container context of its own on ``image``; the caller closes it."""
        wish = wish or Wish(limits=self.limits())
        with disk_errors(self.store.home):
            return Live(self.host, self.store, image.chain_id, image.config, self._directory, wish)

    def limits(
        self,
        *,
        memory_bytes: int | None = None,
        pids: int | None = None,
        cpus: float | None = None,
    ) -> Limits:
        """Limits of a run container: the settings', with what is given in their place."""
        return Limits(
            memory_bytes=memory_bytes or self.config.run_memory_bytes,
            pids=pids or self.config.pids,
            cpus=cpus,
            shm_bytes=self.config.shm_bytes,
        )

    def freeze(self, tag: str | None = None, *, stage: str | None = None) -> Image:
        """Freeze what run cells wrote, as one layer on the stage's image; name it ``tag``.

        The live container goes on undisturbed. The stage stays what its cells say: the new image
        is for whoever names it.
        """
        found = self._stages.find(stage)
        live = self._lives.get(found.name)
        if live is None or found.image is None:
            raise CellError(
                "nothing was run in this stage, so there is nothing to freeze",
                hint="run a cell first; %tag names the image as it was built",
            )
        active = live.copy_scratch()
        image = found.image
        try:
            epoch = epoch_of(image.config)
            snapshot = freeze(self.store, active, "%freeze", Clamp(0, epoch))
        except BaseException:
            self.store.snapshots.remove(active)
            raise
        layer = Layer(snapshot.diff_id, snapshot.chain_id, snapshot.size, "%freeze", cached=False)
        frozen = self._solver().image(self._progress_of(image).with_layer(layer))
        if tag:
            self.store.tags.set(tag, frozen.digest)
        return frozen

    def tag(self, name: str, stage: str | None = None) -> Image:
        """Name the stage's image as it was built last."""
        found = self._stages.find(stage)
        if found.image is None:
            raise CellError("nothing is built yet", hint="run the build cells first")
        self.store.tags.set(name, found.image.digest)
        return found.image

    def find_image(self, reference: str) -> Image:
        """An image by stage, tag, or digest; anything that ``%base`` takes is made."""
        if reference in self._stages.by_name:
            return self.image(reference, on_event=self._on_event, cancel=Cancel())
        progress = self._bases().make(reference, lambda _: None, Cancel())
        return self._solver().image(progress)

    def close(self) -> None:
        """End every container and close the store."""
        for live in self._lives.values():
            live.close()
        self._lives.clear()
        sweeper.drain()
        if not self._above:
            self.store.close()

    # ------------------------------------------------------------ memory across kernels

    def recall(self) -> bool:
        """Take up what the last kernel of this notebook had built; False when nothing is known.

        Cells that are no longer in the notebook's file are left out.
        """
        if self._notebook is None or self._stages.by_name:
            return False
        text = self.store.index.notebook(str(self._notebook))
        if text is None:
            return False
        state = json.loads(text)
        present = order_of(self._notebook)
        for identity, code in state["cells"]:
            items = self._parse(code)
            gone = present and not identity.startswith("text:") and identity not in present
            if isinstance(items, tuple) and not gone:
                try:
                    self._stages.put(identity, code, items, None)
                except NoBase:
                    continue
        if state["current"] in self._stages.by_name:
            self._stages.current = state["current"]
        return bool(self._stages.by_name)

    def _remember(self) -> None:
        if self._notebook is None:
            return
        cells: dict[str, str] = {}
        for stage in self._stages.by_name.values():
            cells |= {cell.identity: cell.code for cell in stage.cells}
        state = {"current": self._stages.current, "cells": list(cells.items())}
        self.store.index.remember_notebook(str(self._notebook), json.dumps(state))

    # ------------------------------------------------------------ solving

    def _solve(self, stage: Stage, until: str | None, on_event: OnEvent, cancel: Cancel) -> None:
        """Build the stage up to the cell ``until`` (or whole) and keep the image if it is whole.

        Of cells other than ``until`` only steps that really run are told of.
        """
        self._on_event, self._cancel = on_event, cancel
        numbered, last = stage.steps(until)
        own = {item.step_id for item in numbered if item.step_id.startswith(f"{until}/")}
        base_is_own = until is not None and stage.position(until) == 0
        total = sum(len(cell.steps) for cell in stage.cells)
        told: set[str] = set()

        def filtered(event: Event) -> None:
            mine = event.step_id in own or (base_is_own and event.step_id == f"{stage.name}/base")
            if isinstance(event, (StepStarted, StepFailed)):
                told.add(event.step_id)
            if mine or event.step_id in told:
                on_event(event)

        progress = self._base(stage, total, filtered, cancel)
        progress = self._solver().solve(
            progress,
            numbered,
            stage=stage.name,
            total=total,
            trail=stage.trail,
            on_event=filtered,
            cancel=cancel,
        )
        if last:
            stage.image = self._solver().image(progress)
            stage.solved = stage.wanted

    def _base(self, stage: Stage, total: int, on_event: OnEvent, cancel: Cancel) -> Progress:
        about = About(
            step_id=f"{stage.name}/base",
            stage=stage.name,
            number=0,
            total=total,
            title=stage.base.title,
        )
        bases = self._bases()
        started = time.monotonic()
        try:
            progress = bases.cached(stage.base.reference)
            if progress is None:
                on_event(about.started())
                with disk_errors(self.store.home):
                    progress = bases.make(
                        stage.base.reference, lambda text: on_event(about.log(text)), cancel
                    )
        except ContainerKernelError as error:
            on_event(about.failed(error, time.monotonic() - started))
            raise
        on_event(about.finished(progress.layers[-1]))
        return progress

    def _stage_chain(self, name: str) -> Digest:
        """The file system of another stage, for ``%copy --from``."""
        assert self._cancel is not None
        if name not in self._stages.by_name:
            return self.find_image(name).chain_id
        return self.image(name, on_event=self._on_event, cancel=self._cancel).chain_id

    def _solver(self) -> Solver:
        return Solver(
            self._workplace(), self._directory, self._stage_chain, use_cache=self._use_cache
        )

    def _bases(self) -> Bases:
        return Bases(
            self._workplace(), self.config.base_folders, self._directory, self._other_notebook
        )

    def _workplace(self) -> Workplace:
        if self._place is None:
            limits = Limits(
                memory_bytes=self.config.build_memory_bytes, pids=self.config.build_pids
            )
            known = site.collect(self.config.environ, self.config.user_home)
            self._place = Workplace(self.host, self.store, known, limits)
        return self._place

    def _other_notebook(self, path: Path) -> Progress:
        """Build another notebook's cells; the progress of its last stage is the base."""
        above = (*self._above, *([self._notebook] if self._notebook else []))
        if path in above:
            chain = " → ".join(p.name for p in (*above, path))
            raise CellError(f"notebooks that are each other's base: {chain}")
        other = Workbench(
            self.config,
            self._namespace,
            path.parent,
            parse=self._parse,
            notebook=path,
            use_cache=self._use_cache,
            _above=(*above, path),
            _host=self.host,
            _store=self.store,
        )
        cancel = self._cancel or Cancel()
        for identity, code in code_cells(path):
            items = other._parse(code)
            if isinstance(items, Use):
                other.use(items.stage)
            elif items:
                other._stages.put(identity, code, items, None)
        image = other.image(on_event=self._on_event, cancel=cancel)
        return self._progress_of(image)

    def _progress_of(self, image: Image) -> Progress:
        manifest = self.store.manifest(image.digest)
        return Progress(image.config, manifest.layers, image.layers, epoch_of(image.config))
