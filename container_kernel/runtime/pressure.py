"""Pressure: which limits a container has met, with the peak and what raises them.

Where a cgroup counts, its events tell. What nothing counts (open files, and without a cgroup memory
and processes) is told by the words a program ends with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from ..folders import has_inodes
from ..record import record
from .cgroup import CgroupParent, Counter, number_in
from .limits import Limits

_MIB = 1024**2


@record
class Hit:
    """A limit that was met. ``flag`` raises it, ``raised`` is an example of a value."""

    what: str
    flag: str
    raised: str
    peak: str = ""

    @property
    def clause(self) -> str:
        """As the message says it: ``the limit of 64 processes was reached (peak 64)``."""
        return f"{self.what} was reached" + (f" (peak {self.peak})" if self.peak else "")

    @property
    def hint(self) -> str:
        """What to do about it."""
        return f"raise it with %limits {self.flag} {self.raised}"


class Pressure:
    """The counters of one container, and what they were when a cell began."""

    def __init__(
        self,
        pid: int,
        limits: Limits,
        rootfs: Path | None,
        counts: tuple[CgroupParent, str] | None,
    ) -> None:
        self.limits = limits
        self._rootfs = rootfs
        self._counts = counts
        self._events_of = _events_of(*counts) if counts else ()
        self._before = (0, 0)
        self.has_overrun = False
        """Whether it had more memory than it may before it could be held to that."""
        try:  # the container's own tmpfs, which can be asked after its end too
            self._shm = os.open(f"/proc/{pid}/root/dev/shm", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            self._shm = -1

    def begin(self) -> None:
        """A cell begins: what was met before is not its doing."""
        self._before, self.has_overrun = self._events(), False

    def _events(self) -> tuple[int, int]:
        kills, refused = (one.value() for one in self._events_of or (_NEVER, _NEVER))
        return kills, refused

    def hits(self, said: str = "") -> tuple[Hit, ...]:
        """The limits met since `begin`; ``said`` is the end of what was written."""
        kills, refused = (
            now - before for now, before in zip(self._events(), self._before, strict=True)
        )
        spoken = [] if self._counts else [_memory_by_words, _pids_by_words]
        found = [
            self._memory() if kills > 0 or self.has_overrun else None,
            self._pids() if refused > 0 else None,
            self._scratch(),
            self._shared(),
            *(tell(self.limits, said) for tell in (*spoken, _files_by_words)),
        ]
        return tuple(hit for hit in found if hit is not None)

    def _memory(self) -> Hit | None:
        limit = self.limits.memory_bytes
        peak = self._counts and self._counts[0].peak_memory_bytes(self._counts[1])
        return _memory_hit(limit, mib(peak) if peak else "") if limit else None

    def _pids(self) -> Hit | None:
        limit = self.limits.pids
        if limit is None or self._counts is None:
            return None
        cgroup, name = self._counts
        peak = number_in(cgroup.file(name, "pids", "pids.peak", "pids.peak"))
        return _pids_hit(limit, str(min(peak or limit, limit)))  # an init process is not counted

    def _scratch(self) -> Hit | None:
        if self._rootfs is None or self._free_blocks(self._rootfs) != 0:
            return None
        limit = self.limits.scratch_bytes
        if limit is None:
            return Hit("the end of the disk that the store is on", "--scratch", "2g")
        return Hit(f"the limit of {mib(limit)} of scratch", "--scratch", example(2 * limit))

    def _shared(self) -> Hit | None:
        if self._shm < 0 or self._free_blocks(self._shm) != 0:
            return None
        limit = self.limits.shm_bytes
        return Hit(f"the limit of {mib(limit)} of /dev/shm", "--shm", example(2 * limit))

    @staticmethod
    def _free_blocks(place: Path | int) -> int | None:
        try:
            found = os.statvfs(place)
        except OSError:
            return None
        return found.f_bavail if has_inodes(found) else 0

    def close(self) -> None:
        """Let go of the container's files."""
        for one in self._events_of:
            one.close()
        if self._shm >= 0:
            os.close(self._shm)
            self._shm = -1


_NEVER = Counter(None, b"")


def _events_of(cgroup: CgroupParent, name: str) -> tuple[Counter, Counter]:
    """Processes killed for memory, and forks refused for their number."""
    memory = cgroup.file(name, "memory", "memory.oom_control", "memory.events")
    pids = cgroup.file(name, "pids", "pids.events", "pids.events")
    return Counter(memory, b"oom_kill"), Counter(pids, b"max")


Tell = Callable[[Limits, str], "Hit | None"]
_NO_MEMORY = r"MemoryError|[Cc]annot allocate memory|std::bad_alloc|out of memory"
_NO_PROCESS = (
    r"can't fork|Cannot fork|start new thread|BlockingIOError.*Errno 11|"
    r"fork: (retry: )?Resource temporarily unavailable"
)
_NO_FILE = r"Too many open files|No file descriptors available"


def _memory_by_words(limits: Limits, said: str) -> Hit | None:
    limit = limits.memory_bytes
    return _memory_hit(limit, "") if limit and re.search(_NO_MEMORY, said) else None


def _pids_by_words(limits: Limits, said: str) -> Hit | None:
    limit = limits.pids
    return _pids_hit(limit, "") if limit and re.search(_NO_PROCESS, said) else None


def _files_by_words(limits: Limits, said: str) -> Hit | None:
    if not re.search(_NO_FILE, said):
        return None
    limit = limits.open_files
    return Hit(f"the limit of {limit} open files", "--files", str(2 * limit))


def _memory_hit(limit: int, peak: str) -> Hit:
    return Hit(f"the limit of {mib(limit)} of memory", "--memory", example(2 * limit), peak)


def _pids_hit(limit: int, peak: str) -> Hit:
    return Hit(f"the limit of {limit} processes", "--pids", str(2 * limit), peak)


def mib(count: int) -> str:
    """Bytes as limits are given: ``512 MiB``."""
    return f"{count / _MIB:.10g} MiB" if count >= _MIB else f"{count / 1024:.10g} KiB"


def example(count: int) -> str:
    """Bytes as a flag takes them: ``512m``."""
    return f"{-(-count // _MIB)}m"
