"""Make: one step's layer, where none is frozen yet. Imported with the first that is to be made."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..errors import BadArguments, InputNotFound, StepFailed
from ..oci.changeset import Clamp
from ..oci.digest import Digest
from ..runtime.rootfs import Rootfs
from . import given, nets, resolved, settings
from .events import Watch
from .execute import Command, freeze, run_and_freeze
from .inputs import Folder, Placer
from .step import Copy, Download, Made, Packages, Shell

if TYPE_CHECKING:
    from ..store.snapshots import Snapshot
    from .graph import Inputs
    from .journal import Journal
    from .lock import LockedStep
    from .progress import Progress
    from .resolved import Input
    from .workplace import Workplace


class Maker:
    """Makes layers in one workplace; ``stage_chain`` is as `Solver` has it."""

    def __init__(
        self,
        place: Workplace,
        directory: Path,
        stage_chain: Callable[[str], Digest],
        journal: Journal,
    ) -> None:
        self._place = place
        self._store = place.store
        self._directory = directory
        self._stage_chain = stage_chain
        self._journal = journal

    def make(
        self,
        progress: Progress,
        step: Made,
        locked: LockedStep | None,
        inputs: Inputs,
        watch: Watch,
    ) -> tuple[Snapshot, list[Input]]:
        """The new layer, and the packages and files that went into it.

        Raises:
            InputNotFound: what it reads is no longer what its key says (``inputs``).
        """
        if isinstance(step, Shell):
            command = self._shell(progress, step, inputs)
            return self._run_command(progress, step, command, watch), []
        if isinstance(step, Packages):
            files = self._requirement_files(step, inputs)
            return self._install(progress, step, files, locked, watch)
        return self._place_files(progress, step, inputs, watch), resolved.of_step(step, None)

    def _install(
        self,
        progress: Progress,
        step: Packages,
        files: Mapping[str, Path],
        locked: LockedStep | None,
        watch: Watch,
    ) -> tuple[Snapshot, list[Input]]:
        from .packages import Installation  # only for those who install

        env = settings.environment(progress.config)
        install = Installation(step, self._place, self._journal, locked)
        command = install.command(files, env)
        try:
            snapshot = self._run_command(progress, step, command, watch)
            return snapshot, install.taken()
        except StepFailed as error:
            raise install.explained(error) from error
        finally:
            install.close()

    def _run_command(
        self,
        progress: Progress,
        step: Made,
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

    def _shell(self, progress: Progress, step: Shell, inputs: Inputs) -> Command:
        config = progress.config
        return Command(
            script=step.body,
            env=settings.environment(config),
            workdir=config.workdir or "/",
            user=config.user or "",
            network=nets.resolve(step.net, self._place.site, self._place.grants.networks),
            extras=given.extras(step, self._directory, inputs),
            caches={path: self._store.cache_folder(_cache_name(path)) for path in step.cache},
        )

    def _requirement_files(self, step: Packages, inputs: Inputs) -> Mapping[str, Path]:
        """Copies of the requirement files: the notebook's may change while the step runs."""
        if not step.files:
            return {}
        folder = Folder.of_notebook(self._directory)
        copies = self._place.host.new_folder("requirements")
        try:
            result = {}
            for number, name in enumerate(step.files):
                result[name] = copies / str(number)
                data = folder.read(name)
                _check(name, str(Digest.of(data)) == inputs.named[name])
                result[name].write_bytes(data)
                self._place.host.open_to_containers(result[name])
            return result
        finally:
            folder.close()

    def _place_files(
        self,
        progress: Progress,
        step: Copy | Download,
        inputs: Inputs,
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
                self._place_copies(step, placer, workdir, inputs)
            rootfs.unmount()
            clamp = Clamp(started, progress.epoch)
            return freeze(self._store, rootfs.active, step.title, clamp, watch)
        except BaseException:
            rootfs.discard()
            raise

    def _place_copies(self, step: Copy, placer: Placer, workdir: str, inputs: Inputs) -> None:
        destination = copy_destination(step.destination, workdir)
        if step.from_stage is None:
            folder = Folder.of_notebook(self._directory)
            try:
                copied = placer.copy(folder, step.sources, destination)
            finally:
                folder.close()
            _check(" ".join(step.sources), str(copied) == inputs.named["content"])
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


def _check(what: str, is_same: bool) -> None:
    if not is_same:
        raise InputNotFound(
            f"{what} changed while it was read",
            hint="run the cell again when nothing writes there",
        )


def copy_destination(path: str, workdir: str) -> str:
    """Absolute in the image; a final slash is kept, it means "into this folder"."""
    whole = posixpath.normpath(posixpath.join("/", workdir, path))
    ends_in_folder = path.endswith("/") or path in (".", "..")
    return whole.rstrip("/") + "/" if ends_in_folder else whole


def _cache_name(path: str) -> str:
    return "build-" + Digest.of(path.encode()).hex[:16]
