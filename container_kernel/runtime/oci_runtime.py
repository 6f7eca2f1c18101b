"""OCI runtime: crun or runc, which starts containers and joins them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import RuntimeFailed
from ..folders import remove_tree
from ..record import replace
from . import bundle, mount_point, refusal, sealed, spawn, strays, sweeper
from .bundle import INIT_PATH, ContainerSpec, Process
from .cgroup import CgroupParent
from .compiled import CompiledFilters
from .container import Container
from .holder import Holder
from .labels import Labels
from .traces import Traces

_MOST_TRIES, _JOINS_WITHIN_S, _SOON_S = 3, 1.0, 0.01
_TOO_EARLY = ("setns(", "fail startup")
_STAYS_WARM_S = 0.02  # see `CgroupParent.warm_up`: another grace period
_numbers = itertools.count(1)  # of the whole process: several runtimes share one state folder


class OciRuntime:
    """crun or runc at an absolute path, with a state folder of our own."""

    def __init__(
        self,
        path: Path,
        run_dir: Path,
        *,
        is_rootless: bool,
        cgroup: CgroupParent | None,
        init: Path | None = None,
    ) -> None:
        self.path = path
        self.cgroup = cgroup
        self.labels = Labels.of_host(run_dir, is_rootless=is_rootless)
        self.init = init
        self._run_dir = run_dir
        self._state_dir = run_dir / "runtime"
        self._cools_at = 0.0
        self.on_spawn: Callable[[], None] = lambda: None
        self._global = [str(path), "--root", str(self._state_dir)]
        self._executable = path
        self._is_rootless = is_rootless
        self._is_crun = path.name.startswith("crun")
        self._compiled = CompiledFilters(run_dir.parent, path)
        self._holder = Holder(cgroup, is_crun=self._is_crun, is_rootless=is_rootless)
        if self._is_crun:
            self._executable = sealed.executable(path, run_dir)
            if is_rootless and cgroup is None:
                self._global.append("--cgroup-manager=disabled")

    @refusal.of_the_host
    def run(
        self,
        spec: ContainerSpec,
        *,
        stdin: int | None = None,
        init: bool = True,
        merge_output: bool = False,
    ) -> Container:
        """Start a container. With ``merge_output`` stderr goes where stdout goes, in order.

        Raises:
            RuntimeFailed: the runtime refused; nothing is left behind.
        """
        has_init = init and self.init is not None
        if has_init:
            spec = self._with_init(spec)
        for _ in range(_MOST_TRIES - 1):
            try:
                return self._run_once(spec, stdin, has_init, merge_output)
            except RuntimeFailed as error:
                # runc loses a race with a process that is ready very early; it never ran.
                if "process is already dead" not in error.stderr:
                    raise
        return self._run_once(spec, stdin, has_init, merge_output)

    def _run_once(
        self, spec: ContainerSpec, stdin: int | None, has_init: bool, merge_output: bool
    ) -> Container:
        name = self._new_name()
        folder = self._run_dir / "bundles" / name
        spec = self.labels.put_on(spec)
        if self._is_crun:
            spec = self._compiled.put_on(spec)
        held = self._holder.on_start(spec.limits, name, has_init=has_init)
        bundle.write(folder, spec, held)
        pid_file = folder / "pid"
        argv = ["run", "--detach", "--bundle", str(folder), "--pid-file", str(pid_file), name]
        leftovers = (folder, self._state_dir / name)
        try:
            with strays.starting:
                stdout, stderr = self._spawn(argv, folder, stdin, merge_output=merge_output)
                container = _known(
                    pid_file,
                    (name, stdout, stderr),
                    limits=spec.limits,
                    cgroup=self.cgroup,
                    has_init=has_init,
                    leftovers=leftovers,
                    rootfs=spec.rootfs,
                )
        except BaseException:
            sweeper.later(Traces(name, self.cgroup, leftovers).remove)
            raise
        container.context = spec.process.selinux
        with container.deleted_on_failure():
            if self._is_crun:
                self._compiled.learn(spec, self._state_dir / name)
            self._hold(container, has_init=has_init)
            if self._is_crun and not self._is_rootless:  # which as root has lost this of our mount
                mount_point.forbid_devices(container.pid)
        return container

    def _new_name(self) -> str:
        """One that no cgroup has: told of none, runc makes one called that, where it may."""
        name = f"c{next(_numbers)}"
        return name if self.cgroup is not None else f"{self._run_dir.name}-{name}"

    def announce(self) -> None:
        """A container will be started in a moment; the sooner this is said, the less it waits."""
        if self.cgroup is not None and time.monotonic() > self._cools_at:
            self._cools_at = time.monotonic() + _STAYS_WARM_S
            self.cgroup.warm_up()

    @refusal.of_the_host
    def exec(
        self, container: Container, process: Process, *, stdin: int | None = None
    ) -> Container:
        """Start another process in a running container, with the container's own filter.

        Raises:
            RuntimeFailed: the runtime refused.
        """
        name = f"{container.name}-e{next(_numbers)}"
        folder = self._run_dir / "bundles" / name
        folder.mkdir(mode=0o700)
        spec_file, pid_file = folder / "process.json", folder / "pid"
        process = self.labels.of_process(process, container.context)
        held = self._holder.on_exec(container.limits, has_init=container.has_init)
        spec_file.write_text(json.dumps(process.to_spec(held)))
        argv = ["exec", "--detach", "--process", str(spec_file), "--pid-file", str(pid_file)]
        try:
            with strays.starting:
                stdout, stderr = self._spawn_beside([*argv, container.name], folder, stdin)
                beside = _known(
                    pid_file,
                    (name, stdout, stderr),
                    limits=container.limits,
                    leftovers=(folder,),
                    beside=container,
                )
        except BaseException:
            remove_tree(folder)
            raise
        container.besides = [*(one for one in container.besides if one.poll() is None), beside]
        with beside.deleted_on_failure():
            self._hold(beside, has_init=container.has_init)
        return beside

    def _hold(self, container: Container, *, has_init: bool) -> None:
        """Its limits; what was quicker than they were ends as it would have for want of memory."""
        if not self._holder.from_outside(container.pid, container.limits, has_init=has_init):
            container.pressure.has_overrun = True
            container.kill()

    def _with_init(self, spec: ContainerSpec) -> ContainerSpec:
        """The init process in front of the command."""
        assert self.init is not None
        process = replace(spec.process, args=(INIT_PATH, "--", *spec.process.args))
        mount = bundle.Mount.bind(self.init, INIT_PATH, readonly=True)
        return replace(spec, process=process, mounts=(*spec.mounts, mount))

    def _spawn_beside(self, argv: list[str], folder: Path, stdin: int | None) -> tuple[int, int]:
        """As `_spawn`. A user's crun cannot join a process that has not begun its own program."""
        end = time.monotonic() + _JOINS_WITHIN_S
        while True:
            try:
                return self._spawn(argv, folder, stdin)
            except RuntimeFailed as error:
                is_early = any(words in error.stderr for words in _TOO_EARLY)
                if not is_early or time.monotonic() > end:
                    raise
                time.sleep(_SOON_S)

    def _spawn(
        self, argv: list[str], folder: Path, stdin: int | None, *, merge_output: bool = False
    ) -> tuple[int, int]:
        """Run the runtime to its end; return the reading ends of the container's output."""
        self.announce()
        log = folder / "log"
        call = spawn.Call([*self._global, "--log", str(log), *argv], self._executable, log, stdin)
        try:
            return spawn.run(call, self.on_spawn, merge_output=merge_output)
        finally:
            self._cools_at = time.monotonic() + _STAYS_WARM_S


def _known(pid_file: Path, named: tuple[str, int, int], **more: Any) -> Container:
    """The container whose first process an OCI runtime has noted; killed if we cannot have it."""
    name, stdout, stderr = named
    pid = int(pid_file.read_text())
    try:
        return Container(pid, name, stdout, stderr, **more)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        strays.wait_for(pid)
        for fd in {stdout, stderr} - {-1}:
            os.close(fd)
        raise
