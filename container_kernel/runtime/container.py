"""Container: one running instance, made by an OCI runtime (crun or runc).

Containers are started detached. This process is their subreaper (see ``namespace``), so their
exit status arrives here and no monitor process stands between; the runtime's own state and the
cgroup are removed by us, which saves a second start of the runtime.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import syscalls
from ..errors import HostError, RuntimeFailed
from ..folders import remove_tree
from ..record import replace
from . import bundle, mount_point, processes, refusal, sealed, spawn, strays, sweeper
from .bundle import ContainerSpec, Process
from .cgroup import CgroupParent, UsageCounters
from .ended import Exit, Usage, describe
from .holder import Holder
from .labels import Labels
from .limits import Limits
from .pressure import Pressure
from .traces import Traces

_MOST_TRIES, _JOINS_WITHIN_S, _SOON_S = 3, 1.0, 0.01
_TOO_EARLY = ("setns(", "fail startup")
_THAWED_AFTER_S, _GIVEN_UP_AFTER_S = 2.0, 8.0
_STAYS_WARM_S = 0.02  # see `CgroupParent.warm_up`: another grace period
_numbers = itertools.count(1)  # of the whole process: several runtimes share one state folder
INIT_PATH = "/run/container-kernel-init"
"""Where the init process is mounted in a container, when the host has one to offer."""


class Container:
    """A started process in namespaces of its own, with its two output pipes.

    ``stdout`` and ``stderr`` are the reading ends; whoever started it reads and closes them
    (or calls `delete`). Ending the first process ends every other one in the container.
    """

    def __init__(
        self,
        pid: int,
        name: str,
        stdout: int,
        stderr: int,
        *,
        limits: Limits,
        cgroup: CgroupParent | None = None,
        has_init: bool = False,
        leftovers: tuple[Path, ...] = (),
        rootfs: Path | None = None,
        beside: Container | None = None,
    ) -> None:
        self.pid = pid
        self.name = name
        self.stdout = stdout
        self.stderr = stderr
        self.pidfd = os.pidfd_open(pid)
        strays.known.add(pid)
        self.limits = limits
        self.context: str | None = None  # of SELinux
        self._cgroup = cgroup
        if beside is None:
            self.pressure = Pressure(pid, limits, rootfs, (cgroup, name) if cgroup else None)
        else:
            self.pressure = beside.pressure
        self._owns_pressure = beside is None
        self.has_init = has_init
        self._leftovers = leftovers
        self._counters: UsageCounters | None = None
        self._exit: Exit | None = None
        self._used: resource.struct_rusage | None = None
        self.besides: list[Container] = []
        """Those started beside it, of which some may have ended."""
        self._waiting = threading.Lock()

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs."""
        return self.wait(timeout_s=0)

    def wait(self, timeout_s: float | None = None) -> Exit | None:
        """Wait for its end; None when it still runs after ``timeout_s`` seconds."""
        if self._exit is None and not syscalls.readable([self.pidfd], timeout_s):
            return None
        with self._waiting:
            if self._exit is None:
                status, self._used = strays.wait_for(self.pid)
                strays.known.discard(self.pid)
                code, limit = os.waitstatus_to_exitcode(status), self.memory_bytes
                hits = self.pressure.hits() if code else ()
                self._exit = describe(code, hits, limit, has_init=self.has_init)
            return self._exit

    def usage(self) -> Usage | None:
        """What it used; None while it runs. To be asked before `delete`."""
        used = self._used
        if used is None:
            return None
        counted = self._cgroup.cpu_seconds(self.name) if self._cgroup else None
        peak = self._cgroup.peak_memory_bytes(self.name) if self._cgroup else None
        return Usage(counted or used.ru_utime + used.ru_stime, peak or used.ru_maxrss * 1024)

    def used_so_far(self) -> Usage | None:
        """What it has used while it runs; None where no cgroup counts it."""
        if self._cgroup is None:
            return None
        if self._counters is None:
            self._counters = self._cgroup.counters(self.name)
        seconds = self._counters.cpu_seconds()
        return None if seconds is None else Usage(seconds, self._counters.peak.value())

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit that is held, if any."""
        return self.limits.memory_bytes if self._cgroup else None

    @property
    def cgroup(self) -> CgroupParent | None:
        """Where its own cgroup is, if it has one."""
        return self._cgroup

    @property
    def freezer(self) -> Path | None:
        """The cgroup folder that stops and resumes all that is in it."""
        return self._cgroup.freezer(self.name) if self._cgroup else None

    def interrupt(self) -> None:
        """Send SIGINT as a terminal would: to the foreground process group."""
        target = self._foreground()
        try:
            os.killpg(target, signal.SIGINT)
        except (ProcessLookupError, PermissionError):
            self.signal(signal.SIGINT)

    def signal(self, number: int) -> None:
        """Send a signal to the first process; nothing happens when it is gone."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """End it and everything in it, now."""
        self.signal(signal.SIGKILL)

    def delete(self) -> Exit:
        """Kill what still runs and remove every trace; safe to call twice.

        Raises:
            HostError: something in it cannot be killed; it is given up, and a second call returns.
        """
        try:
            return self._exit or self._end()
        finally:
            self._let_go()

    def _end(self) -> Exit:
        """Kill it, wherever it stands still: a frozen cgroup of v1 keeps even the killed."""
        self.kill()
        exit_ = self._wait_with_besides(_THAWED_AFTER_S)
        if exit_ is None and self._cgroup is not None:
            self._cgroup.thaw(self.name)
        exit_ = exit_ or self._wait_with_besides(_GIVEN_UP_AFTER_S)
        if exit_ is None:
            self._exit = Exit(None, signal.SIGKILL)
            raise HostError(
                f"a container does not end: {processes.stuck(self.pid)} cannot be killed",
                hint="it ends when the disk or server that it waits for answers; go on without it",
            )
        return exit_

    def _wait_with_besides(self, timeout_s: float) -> Exit | None:
        """The host kernel ends it when nobody else is left, and the others are our children too."""
        end = time.monotonic() + timeout_s
        while (exit_ := self.wait(_SOON_S)) is None and time.monotonic() < end:
            for one in self.besides:
                one.poll()
        return exit_

    @contextmanager
    def deleted_on_failure(self) -> Iterator[None]:
        """Nobody has it yet."""
        try:
            yield
        except BaseException:
            self.delete()
            raise

    def _let_go(self) -> None:
        for fd in (self.stdout, self.stderr, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = self.pidfd = -1
        if self._owns_pressure:
            self.pressure.close()
        if self._counters is not None:
            self._counters.close()
            self._counters = None
        if self._leftovers:
            sweeper.later(Traces(self.name, self._cgroup, self._leftovers).remove)
            self._cgroup, self._leftovers = None, ()

    def _foreground(self) -> int:
        """The process group of the command: the init process gives it one of its own."""
        if self.has_init:
            try:
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
                return int(children[0])
            except (OSError, IndexError, ValueError):
                pass
        return self.pid


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
        name = f"c{next(_numbers)}"
        folder = self._run_dir / "bundles" / name
        spec = self.labels.put_on(spec)
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
            self._holder.from_outside(container.pid, spec.limits, has_init=has_init)
            if self._is_crun and not self._is_rootless:  # which as root has lost this of our mount
                mount_point.forbid_devices(container.pid)
        return container

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
            with strays.starting, spawn.no_input() as nothing:
                given = nothing if stdin is None else stdin
                stdout, stderr = self._spawn_beside([*argv, container.name], folder, given)
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
            self._holder.from_outside(beside.pid, container.limits, has_init=container.has_init)
        return beside

    def _with_init(self, spec: ContainerSpec) -> ContainerSpec:
        """The init process in front of the command."""
        assert self.init is not None
        process = replace(spec.process, args=(INIT_PATH, "--", *spec.process.args))
        mount = bundle.Mount.bind(self.init, INIT_PATH, readonly=True)
        return replace(spec, process=process, mounts=(*spec.mounts, mount))

    def _spawn_beside(self, argv: list[str], folder: Path, stdin: int) -> tuple[int, int]:
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
