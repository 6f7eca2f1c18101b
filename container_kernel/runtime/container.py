"""Container: one running instance, made by an OCI runtime (crun or runc).

Containers are started detached. This process is their subreaper (see ``namespace``), so their
exit status arrives here and no monitor process stands between; the runtime's own state and the
cgroup are removed by us, which saves a second start of the runtime.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import syscalls
from ..errors import HostError
from . import processes, strays, sweeper
from .cgroup import CgroupParent, UsageCounters
from .ended import Exit, Usage, describe
from .limits import Limits
from .pressure import Pressure
from .traces import Traces

_SOON_S, _THAWED_AFTER_S, _GIVEN_UP_AFTER_S = 0.01, 2.0, 8.0


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
                code, limit = os.waitstatus_to_exitcode(status), self.limits.memory_bytes
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
        """The process group of the command: the init process gives it one of its own.

        What was started beside it is in one that an OCI runtime has made and left.
        """
        if self.has_init:
            try:
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
                return int(children[0])
            except (OSError, IndexError, ValueError):
                pass
        with suppress(ProcessLookupError):
            group = os.getpgid(self.pid)
            if group > 0 and group != os.getpgrp():
                return group
        return self.pid
