"""Solve: from a base and steps to a frozen image, running only what is not frozen yet."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from ..errors import (
    BadArguments,
    ContainerKernelError,
    InputNotFound,
    StepFailed,
)
from ..oci.changeset import Clamp
from ..oci.digest import Digest, extend_chain
from ..runtime.rootfs import Rootfs
from ..store import layer as layers
from ..store.snapshots import Snapshot, disk_errors
from . import given, nets, resolved, settings
from .cancel import Cancel
from .events import About, Image, Layer, OnEvent
from .execute import Command, Watch, Workplace, freeze, run_and_freeze
from .given import Extras
from .graph import key_of, key_parts
from .inputs import Folder, Placer
from .ledger import Ledger
from .lock import LockedStep
from .progress import Numbered, Progress, Trail
from .resolved import Input
from .step import Copy, Download, Packages, Setting, Shell, Step


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
            on_event(about.failed(error, time.monotonic() - started))
            raise
        on_event(about.finished(layer))
        return progress.with_layer(layer)

    def _layer(
        self,
        progress: Progress,
        step: Shell | Packages | Copy | Download,
        about: About,
        on_event: OnEvent,
        cancel: Cancel,
    ) -> Layer:
        inputs = self._inputs(step)
        parts = key_parts(step, progress.chain_id, progress.config, inputs, progress.epoch)
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

            watch = Watch(log, cancel, remember)
            snapshot, taken = self._run(progress, step, locked, watch)
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

    def _inputs(self, step: Shell | Packages | Copy | Download) -> dict[str, str]:
        """What the step reads, named by content."""
        if isinstance(step, Shell):
            return given.inputs(self._extras(step), self._place.grants.home, self._store.home)
        if isinstance(step, Packages) and step.files:
            folder = Folder.of_notebook(self._directory)
            try:
                return {name: str(Digest.of(folder.read(name))) for name in step.files}
            finally:
                folder.close()
        if isinstance(step, Copy):
            if step.from_stage:
                return {" ".join(step.sources): str(self._stage_chain(step.from_stage))}
            folder = Folder.of_notebook(self._directory)
            try:
                for source in step.sources:
                    folder.check(source)
                return {"content": str(folder.digest(step.sources))}
            finally:
                folder.close()
        return {}

    def _run(
        self,
        progress: Progress,
        step: Shell | Packages | Copy | Download,
        locked: LockedStep | None,
        watch: Watch,
    ) -> tuple[Snapshot, list[Input]]:
        """The new layer, and the packages and files that went into it."""
        if isinstance(step, Shell):
            return self._run_command(progress, step, self._shell(progress, step), watch), []
        if isinstance(step, Packages):
            return self._install(progress, step, locked, watch)
        return self._place_files(progress, step, watch), resolved.of_step(step, None)

    def _install(
        self, progress: Progress, step: Packages, locked: LockedStep | None, watch: Watch
    ) -> tuple[Snapshot, list[Input]]:
        from .packages import Installation  # only for those who install

        files = self._requirement_files(step)
        env = settings.environment(progress.config)
        install = Installation(step, self._place, self._ledger.journal, locked)
        command = install.command(files, env)
        try:
            snapshot = self._run_command(progress, step, command, watch)
        except StepFailed as error:
            raise install.explained(error) from error
        return snapshot, install.taken()

    def _run_command(
        self,
        progress: Progress,
        step: Step,
        command: Command,
        watch: Watch,
    ) -> Snapshot:
        return run_and_freeze(
            self._place,
            progress.chain_id,
            command,
            title=step.title,
            epoch=progress.epoch,
            watch=watch,
        )

    def _shell(self, progress: Progress, step: Shell) -> Command:
        config = progress.config
        return Command(
            script=step.body,
            env=settings.environment(config),
            workdir=config.workdir or "/",
            user=config.user or "",
            network=nets.resolve(step.net, self._place.site, self._place.grants.networks),
            extras=self._extras(step),
            caches={path: self._store.cache_folder(_cache_name(path)) for path in step.cache},
        )

    def _extras(self, step: Shell) -> Extras:
        return Extras(
            directory=self._directory,
            mounts=step.mounts,
            secrets=step.secrets,
            devices=step.devices,
            ssh=step.ssh,
        )

    def _requirement_files(self, step: Packages) -> Mapping[str, Path]:
        """Copies of the requirement files: the notebook's may change while the step runs."""
        if not step.files:
            return {}
        folder = Folder.of_notebook(self._directory)
        copies = self._place.host.new_folder("requirements")
        try:
            result = {}
            for number, name in enumerate(step.files):
                result[name] = copies / str(number)
                result[name].write_bytes(folder.read(name))
            return result
        finally:
            folder.close()

    def _place_files(
        self,
        progress: Progress,
        step: Copy | Download,
        watch: Watch,
    ) -> Snapshot:
        started = time.time()
        if isinstance(step, Download):
            self._fetch(step, watch)
        rootfs = Rootfs(self._place.host, self._store, progress.chain_id)
        try:
            placer = Placer(rootfs.fd, self._store.idmap)
            workdir = progress.config.workdir or "/"
            if isinstance(step, Download):
                self._place_download(step, placer, workdir)
            else:
                self._place_copies(step, placer, workdir)
            rootfs.unmount()
            clamp = Clamp(started, progress.epoch)
            return freeze(self._store, rootfs.active, step.title, clamp, watch.named)
        except BaseException:
            rootfs.discard()
            raise

    def _place_copies(self, step: Copy, placer: Placer, workdir: str) -> None:
        destination = copy_destination(step.destination, workdir)
        if step.from_stage is None:
            folder = Folder.of_notebook(self._directory)
            before = folder.digest(step.sources)
            placer.copy(folder, step.sources, destination)
            changed = folder.digest(step.sources) != before
            folder.close()
            if changed:
                raise InputNotFound(
                    f"{' '.join(step.sources)} changed while it was copied",
                    hint="run the cell again when nothing writes there",
                )
            return
        other = Rootfs(self._place.host, self._store, self._stage_chain(step.from_stage))
        try:
            folder = Folder(other.path, f"stage {step.from_stage!r}")
            for source in step.sources:
                folder.check(source)
            placer.copy(folder, step.sources, destination)
            folder.close()
        finally:
            other.discard()

    def _place_download(self, step: Download, placer: Placer, workdir: str) -> None:
        name = posixpath.basename(unquote(step.url.partition("?")[0]))
        destination = copy_destination(step.destination or "./", workdir)
        if destination.endswith("/") or placer.is_folder(destination):
            destination = posixpath.join(destination, name or "download")
        with self._store.content.open(Digest(step.digest)) as blob:
            placer.write(blob, destination)

    def _fetch(self, step: Download, watch: Watch) -> None:
        """Bring the file into the store, where its digest names it; once is enough."""
        try:
            digest = Digest(step.digest)
        except ValueError as error:
            raise BadArguments(
                f"%download needs the file's digest, sha256: and 64 hexadecimal digits: {error}",
                hint=f"sha256sum prints it: curl -L {step.url} | sha256sum",
            ) from error
        if self._store.content.has(digest):
            watch.log("in the store already\n")
            return
        from .fetch import fetch  # urllib takes 30 ms to import: only for those who download

        fetch(step.url, digest, self._place, watch.cancel)


def layer_of(
    snapshot: Snapshot, title: str, seconds: float, *, cached: bool, key: str = ""
) -> Layer:
    """The layer that ``snapshot`` is on top of its parents."""
    diff_id, chain_id, size = snapshot.diff_id, snapshot.chain_id, snapshot.size
    return Layer(diff_id, chain_id, size, title, seconds, cached=cached, key=key)


def copy_destination(path: str, workdir: str) -> str:
    """Absolute in the image; a final slash is kept, it means "into this folder"."""
    whole = posixpath.normpath(posixpath.join("/", workdir, path))
    ends_in_folder = path.endswith("/") or path in (".", "..")
    return whole.rstrip("/") + "/" if ends_in_folder else whole


def _cache_name(path: str) -> str:
    return "build-" + Digest.of(path.encode()).hex[:16]
