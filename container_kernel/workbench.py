"""Workbench: one notebook's stages, images and containers.

The façade that a kernel and the command line drive. It knows cells only as identities with steps:
a cell that is run again replaces itself in its stage's chain; what follows it is stale and solved
again before the next run cell. Everything here is synchronous and meant for one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .build import forecast, imported, memory
from .build.cancel import Cancel
from .build.events import Image, OnEvent
from .build.notebook_file import code_cells, identity_of, order_of
from .build.progress import Progress
from .build.stages import ALL, Parse, Stage, Stages, StageView
from .build.step import Items
from .errors import CellError, StoreError
from .oci.digest import Digest
from .record import replace
from .runtime import sweeper
from .runtime.host import Host
from .runtime.live import Live
from .runtime.lives import Lives
from .runtime.namespace import Namespace
from .runtime.session import Session
from .store.disk import disk_errors
from .store.store import Store

if TYPE_CHECKING:
    from .build.builder import Builder
    from .build.ledger import Ledger
    from .build.line import Line
    from .build.lock import Lock
    from .config import Config
    from .oci.spec import ImageConfig
    from .runtime.limits import Limits
    from .runtime.wish import Wish


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
        imported.guard(self.store)
        self._namespace = namespace
        self._directory = directory
        self.notebook = notebook
        self._parse = parse
        self._use_cache = use_cache
        self._above = _above
        self._is_twin = False
        self._stages = Stages()
        self.lives = Lives(self._open)
        self.away: dict[str, Image] = {}  # where the session of a stage is, if not on its image
        self.past: list[tuple[str, str, Progress]] = []  # what was built, for `line`
        self.line: Line | None = None
        self.set_limits: dict[str, Any] = {}
        self.required: str | None = None
        self.session = Session(config.user_home)
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
        return self._stages.views(self._image_of)

    @property
    def stage_names(self) -> list[str]:
        """Their names, in that order; safe to ask for in any thread."""
        return list(self._stages.by_name)

    def build(
        self,
        cell_id: str | None,
        code: str,
        items: Items,
        *,
        order: Sequence[str] | None = None,
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
        identity = identity_of(cell_id, code)
        order = order_of(self.notebook) if order is None and self.notebook else order
        stage = self._stages.put(identity, code, items, order)
        try:
            self._solve(stage, identity, on_event, cancel)
        except BaseException:
            self._stages = before
            raise
        self._stages.current = stage.name
        self.away.pop(stage.name, None)

    def build_all(self, *, on_event: OnEvent, cancel: Cancel) -> dict[str, Image]:
        """Build the notebook as its file has it: each step once. Returns the stages' images.

        Raises:
            CellError: a cell's own mistake, told before anything is built, or a failed step.
        """
        assert self.notebook is not None
        self._stages.put_all(code_cells(self.notebook), self._parse)
        for stage in self._stages.by_name.values():
            self._solve(stage, ALL, on_event, cancel)
        return {
            name: self.image(name, on_event=on_event, cancel=cancel) for name in self.stage_names
        }

    def forget(self, identities: Sequence[str]) -> None:
        """Cells that were deleted build nothing any more."""
        self._stages.forget(*identities)

    def use(self, stage: str) -> None:
        """Send the cells that follow to ``stage``.

        Raises:
            CellError: there is no such stage.
        """
        self._stages.current = self._stages.find(stage).name
        memory.write(self.store, self.notebook, self._stages)

    def image(self, stage: str | None = None, *, on_event: OnEvent, cancel: Cancel) -> Image:
        """The image of a stage (the current one), with whatever was stale built again.

        Raises:
            NoBase: there is no stage yet.
        """
        found = self._stages.find(stage)
        if self._stages.is_stale(found):
            self._solve(found, None, on_event, cancel)
        image = self._image_of(found)
        assert image is not None
        return image

    def stage(self, name: str | None = None) -> Stage:
        """A stage as it is kept here (the current one); it is not to be changed."""
        return self._stages.find(name)

    def is_stale(self, name: str | None = None) -> bool:
        """Whether a stage (the current one) is not what its cells say."""
        return self._stages.is_stale(self._stages.find(name))

    def make(self, progress: Progress) -> Image:
        """The image of what was built."""
        return self._builder.image(progress)

    def _image_of(self, stage: Stage) -> Image | None:
        """Made when it is first asked for: a row of cells makes one image, not one each."""
        if stage.image is None and stage.progress is not None:
            stage.image = self._builder.image(stage.progress)
            memory.write(self.store, self.notebook, self._stages)
        return stage.image

    # ------------------------------------------------------------ running

    def live(
        self,
        stage: str | None = None,
        *,
        on_event: OnEvent,
        cancel: Cancel,
        restart: bool | None = None,
    ) -> Live:
        """The container context of a stage's current image.

        When the image changed, it goes over to the new one, with the processes in it; where they
        cannot go along, it is closed and another takes its place. ``restart`` is as in `Lives.on`,
        and ``lives.take_move`` tells what was done.
        """
        name = self._stages.find(stage).name
        image = self.away.get(name) or self.image(name, on_event=on_event, cancel=cancel)
        live = self.lives.on(name, image.chain_id, image.config, restart=restart)
        live.image, live.stage = image.digest, name
        self.lives.close_others(self._stages.by_name)
        return live

    def keep_live(self, *, at_any_price: bool) -> bool:
        """Bring what runs in the current stage over to the image just built, if that is whole.

        False when it is not, or nothing runs or can go along: `live` does what is to be done then.
        """
        stage = self._stages.find(None)
        live = self.lives.get(stage.name)
        if live is None or self.is_stale() or (image := self._image_of(stage)) is None:
            return False
        is_kept = self.lives.try_to_keep(
            stage.name, image.chain_id, image.config, at_any_price=at_any_price
        )
        if is_kept:
            live.image = image.digest
        return is_kept

    def fresh(self, image: Image, wish: Wish | None = None) -> Live:
        """A container context of its own on ``image``; the caller closes it."""
        return self._open(image.chain_id, image.config, wish)

    def _open(self, chain: Digest, config: ImageConfig, wish: Wish | None = None) -> Live:
        wish = wish or self.session.wish(self.limits(), self.config.relaxed())
        self._check_level()
        self.config.check_network(wish.network.kind)
        with disk_errors(self.store.home):
            return Live(self.host, self.store, chain, config, self._directory, wish)

    def _check_level(self) -> None:
        for wanted in (*self.config.least_levels, self.required):
            self.host.level.require(wanted)

    def limits(self, asked: Mapping[str, Any] | None = None) -> Limits:
        """Limits of a run container: the settings', in their place %limits', then what is given.

        Raises:
            CeilingExceeded: the administrator of the host does not allow it.
        """
        return self.config.run_limits(self.set_limits | dict(asked or {}))

    def freeze(self, tag: str | None = None, *, stage: str | None = None) -> Image:
        """Freeze what run cells wrote, as one layer on the stage's image; name it ``tag``.

        The live container goes on undisturbed. The stage stays what its cells say: the new image
        is for whoever names it.
        """
        found = self._stages.find(stage)
        live = self.lives.get(found.name)
        image = self.away.get(found.name) or self._image_of(found)
        if live is None or image is None:
            raise CellError(
                "nothing was run in this stage, so there is nothing to freeze",
                hint="run a cell first; %tag names the image as it was built",
            )
        active = live.copy_scratch()
        try:
            frozen = self._builder.freeze(image, active, "%freeze")
        except BaseException:
            self.store.snapshots.remove(active)
            raise
        if tag:
            self.store.tags.set(tag, frozen.digest)
        return frozen

    def find_image(self, reference: str, cancel: Cancel | None = None) -> Image:
        """An image by stage, tag, or digest; anything that ``%base`` takes is made."""
        cancel = cancel or Cancel()
        if reference in self._stages.by_name:
            return self.image(reference, on_event=self._on_event, cancel=cancel)
        return self._builder.make_base(reference, cancel)

    def lock(self, *, on_event: OnEvent, cancel: Cancel) -> Lock:
        """What all stages are made of, with whatever was stale built again."""
        from .build.locking import lock_of

        stages = self._stages.by_name
        made = {name: self.image(name, on_event=on_event, cancel=cancel) for name in stages}
        return lock_of(made, stages, self.ledger.journal)

    def twin(self, home: Path) -> Workbench:
        """The same cells on a store of their own in ``home``, where nothing is built yet."""
        twin = self._sister(replace(self.config, home=home), self.notebook)
        twin._is_twin, twin._stages = True, self._stages.unbuilt()
        return twin

    @property
    def ledger(self) -> Ledger:
        """What layers were made of, and how each step was decided last."""
        return self._builder.ledger

    def base_image(self, stage: str, cancel: Cancel) -> Image:
        """The image that a stage starts from."""
        return self._builder.make_base(self._stages.find(stage).base.reference, cancel)

    def close(self) -> None:
        """End every container and close the store. What was built is remembered."""
        with suppress(StoreError):
            for stage in self._stages.by_name.values():
                self._image_of(stage)
        self.lives.close()
        self.session.close()
        sweeper.drain()
        if not self._above:
            self.host.close_uplinks()
            self.store.close()

    # ------------------------------------------------------------ memory across kernels

    def recall(self, base: str | None = None) -> bool:
        """Take up what the last kernel of this notebook had built; False when nothing is known.

        Cells that are no longer in the notebook's file are left out. ``base`` is what the notebook
        stands on where no cell of it says so, as if ``%base`` with it were the first cell.
        """
        if self._stages.by_name:
            return False
        memory.recall(self.store.index, self.notebook, self._stages, self._parse, base)
        return bool(self._stages.by_name)

    def anticipate(
        self, image: str | None = None, early: tuple[str, Live] | None = None
    ) -> tuple[str, Live] | None:
        """The stage that was current last and a container context of the image it had then.

        Where nothing was, a stage on ``image``. A kernel that was told of no notebook takes what
        the last such kernel ran on: often it is the same. None where there is nothing, or it is
        gone. `live` returns the same context when it turns out that the cells make that image.
        ``early`` was opened by a forecast of this: it is taken if it is the same.
        """
        found = memory.forecast(self.store, self.notebook, image)
        if found is None:
            return None
        if early is not None and found == forecast.of(*early):
            self.lives.adopt(*early)
        else:
            forecast.write(self.store.home, forecast.name_of(self.notebook, image), found)
        return found.stage, self.lives.on(found.stage, found.chain_id, found.config)

    # ------------------------------------------------------------ solving

    def _solve(self, stage: Stage, until: str | None, on_event: OnEvent, cancel: Cancel) -> None:
        self._check_level()
        self._stages.check_order(stage)
        self._on_event, self._cancel = on_event, cancel
        if self._builder.solve(stage, until, on_event, cancel):
            stage.solved = self._stages.wanted(stage)

    @cached_property
    def _builder(self) -> Builder:
        # Imported with the first step: a kernel that finds everything built starts without it.
        from .build.opening import Surroundings, open_builder

        around = Surroundings(
            directory=self._directory,
            notebook=self.notebook,
            use_cache=self._use_cache,
            is_twin=self._is_twin,
            other_notebook=self._other_notebook,
            stage_chain=self._stage_chain,
        )
        return open_builder(self.host, self.store, self.config, around)

    def _stage_chain(self, name: str) -> Digest:
        """The file system of another stage, for ``%copy --from``."""
        assert self._cancel is not None
        if name not in self._stages.by_name:
            return self.find_image(name).chain_id
        return self.image(name, on_event=self._on_event, cancel=self._cancel).chain_id

    def _other_notebook(self, path: Path) -> Progress:
        """Build another notebook's cells; the progress of its last stage is the base."""
        above = (*self._above, *([self.notebook] if self.notebook else []))
        if path in above:
            chain = " → ".join(p.name for p in (*above, path))
            raise CellError(f"notebooks that are each other's base: {chain}")
        config = replace(self.config, is_locked=False)  # its layers are named by our own lock
        other = self._sister(config, path, _above=(*above, path), _store=self.store)
        other._stages.put_all(code_cells(path), self._parse)
        image = other.image(on_event=self._on_event, cancel=self._cancel or Cancel())
        return self._builder.progress_of(image)

    def _sister(self, config: Config, notebook: Path | None, **more: Any) -> Workbench:
        more |= {"parse": self._parse, "use_cache": self._use_cache, "_host": self.host}
        directory = notebook.parent if notebook else self._directory
        return Workbench(config, self._namespace, directory, notebook=notebook, **more)
