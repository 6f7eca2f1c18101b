"""Container: one running instance, made by an OCI runtime (crun or runc).

Containers are started detached. This process is their subreaper (see ``namespace``), so their
exit status arrives here and no monitor process stands between; the runtime's own state and the
cgroup are removed by us, which saves a second start of the runtime.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .. import syscalls
from ..errors import RuntimeFailed
from ..folders import remove_tree
from ..record import replace
from . import bundle, sealed, strays, sweeper
from .bundle import ContainerSpec, Process
from .cgroup import CgroupParent, UsageCounters
from .ended import Exit, Usage
from .holder import Holder
from .labels import Labels
from .limits import Limits
from .pressure import Pressure
from .traces import Traces

_SANE_ENV = {"PATH": bundle.DEFAULT_PATH, "LC_ALL": "C.UTF-8"}
_MOST_TRIES, _JOINS_WITHIN_S, _SOON_S = 3, 1.0, 0.01
_STAYS_WARM_S = 0.02  # see `CgroupParent.warm_up`: another grace period
_numbers = itertools.count(1)  # of the whole process: several runtimes share one state folder
_NO_NAMESPACE = r"(?is)(unshare|clone|namespace).*no space left on device"
_ALLOW_NAMESPACES = (
    "this host allows no more namespaces of some kind, most likely of networks; an administrator "
    "can: sudo sysctl user.max_net_namespaces=15000 (container-kernel doctor names the kind)"
)
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
                self._exit = self._describe(os.waitstatus_to_exitcode(status))
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
        """Kill what still runs and remove every trace; safe to call twice."""
        if self._exit is None:
            self.kill()
        exit_ = self.wait()
        assert exit_ is not None
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
        return exit_

    def _describe(self, code: int) -> Exit:
        if code == 0:
            return Exit(0)
        hits, limit = self.pressure.hits(), self.memory_bytes
        killed = any(hit.flag == "--memory" for hit in hits)
        if code > 0:
            number = code - 128 if self.has_init and code > 128 else None
            out_of_memory = killed and number == signal.SIGKILL
            known = number is not None and number in set(signal.Signals)
            return Exit(code, number if known else None, out_of_memory, limit, hits)
        return Exit(None, -code, killed and -code == signal.SIGKILL, limit, hits)

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
        self._is_crun = path.name.startswith("crun")
        self._holder = Holder(cgroup, is_crun=self._is_crun, is_rootless=is_rootless)
        if self._is_crun:
            self._executable = sealed.executable(path, run_dir)
            if is_rootless and cgroup is None:
                self._global.append("--cgroup-manager=disabled")

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
        with strays.starting:
            try:
                stdout, stderr = self._spawn(argv, folder, stdin, merge_output=merge_output)
            except RuntimeFailed:
                sweeper.later(Traces(name, self.cgroup, leftovers).remove)
                raise
            container = Container(
                int(pid_file.read_text()),
                name,
                stdout,
                stderr,
                limits=spec.limits,
                cgroup=self.cgroup,
                has_init=has_init,
                leftovers=leftovers,
                rootfs=spec.rootfs,
            )
            container.context = spec.process.selinux
        self._holder.from_outside(container.pid, spec.limits, has_init=has_init)
        return container

    def announce(self) -> None:
        """A container will be started in a moment; the sooner this is said, the less it waits."""
        if self.cgroup is not None and time.monotonic() > self._cools_at:
            self._cools_at = time.monotonic() + _STAYS_WARM_S
            self.cgroup.warm_up()

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
        with strays.starting:
            try:
                stdout, stderr = self._spawn_beside([*argv, container.name], folder, stdin)
            except RuntimeFailed:
                remove_tree(folder)
                raise
            pid = int(pid_file.read_text())
            beside = Container(
                pid,
                name,
                stdout,
                stderr,
                limits=container.limits,
                leftovers=(folder,),
                beside=container,
                has_init=False,
            )
        self._holder.from_outside(beside.pid, container.limits, has_init=container.has_init)
        return beside

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
                if "setns(" not in error.stderr or time.monotonic() > end:
                    raise
                time.sleep(_SOON_S)

    def _spawn(
        self, argv: list[str], folder: Path, stdin: int | None, *, merge_output: bool = False
    ) -> tuple[int, int]:
        """Run the runtime to its end; return the reading ends of the container's output."""
        self.announce()
        log = folder / "log"
        out_r, out_w = os.pipe()
        err_r, err_w = (-1, os.dup(out_w)) if merge_output else os.pipe()
        try:
            # close_fds: a folder that leaks into the runtime is a way out (CVE-2024-21626).
            runtime = subprocess.Popen(
                [*self._global, "--log", str(log), *argv],
                executable=self._executable,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=out_w,
                stderr=err_w,
                close_fds=True,
                env=_SANE_ENV,
                cwd="/",
            )
            self.on_spawn()
            returncode = runtime.wait()
        finally:
            os.close(out_w)
            os.close(err_w)
        self._cools_at = time.monotonic() + _STAYS_WARM_S
        if returncode == 0:
            return out_r, err_r
        said = log.read_text() if log.exists() else ""
        for fd in {out_r, err_r} - {-1}:
            os.set_blocking(fd, False)
            said = said or _read_all(fd)
            os.close(fd)
        error = RuntimeFailed((self.path.name, *argv[:1]), returncode, said)
        if re.search(_NO_NAMESPACE, said):
            error.hint = _ALLOW_NAMESPACES
        raise error


def _read_all(fd: int) -> str:
    chunks = []
    try:
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except BlockingIOError:
        pass
    return b"".join(chunks).decode(errors="replace")
