"""Processes: who is in a container, and how many they may be where no cgroup counts them."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from .cgroup import field_of
from .limits import clamped

_ENDS_WITHIN_S = 1.0
_MOST_LOOKS = 100
_RUNC = "runc:[2:INIT]\n"


def members(pid: int) -> list[int]:
    """The processes in the pid namespace of ``pid``, and whatever descends from them.

    Raises:
        ProcessLookupError: it has ended, though nobody has waited for it yet.
    """
    namespace = _namespace_of(pid)
    found, parents = {pid}, _parents()
    for other in parents:
        with suppress(OSError):
            if _namespace(other) == namespace:
                found.add(other)
    return sorted(_with_descendants(found, parents))


def _parents() -> dict[int, int]:
    """The parent of every process that can be seen."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError, IndexError):
            found[int(name)] = int(stat_fields(f"/proc/{name}/stat")[1])
    return found


def _with_descendants(found: set[int], parents: Mapping[int, int]) -> set[int]:
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found = found | more
    return found


def on_host() -> int:
    """How many processes and threads there are, whoever has them (see proc_loadavg(5))."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])


def limit(pid: int, number: int, most: int) -> None:
    """Hold the container of ``pid`` to an rlimit, from outside, once it runs.

    Since Linux 5.14 a user's processes (RLIMIT_NPROC) are counted for each user namespace apart,
    and a container has one of its own.
    """
    most = clamped(number, most)
    each(pid, lambda one: resource.prlimit(one, number, (most, most)))


def has_more_data(pid: int, most: int) -> bool:
    """Whether ``pid`` or what it has started holds more than ``most`` bytes (VmData, see
    proc_pid_status(5)): RLIMIT_DATA takes nothing away.

    What is still runc's own ends in a moment, and the program begins with its limit.
    """

    def holds_more(one: int) -> bool:
        with suppress(OSError):
            data = field_of(Path(f"/proc/{one}/status"), "VmData:") * 1024
            return data > most and Path(f"/proc/{one}/comm").read_text() != _RUNC
        return False

    return any(holds_more(one) for one in _with_descendants({pid}, _parents()))


def bind(pid: int, processors: Collection[int]) -> None:
    """Have the container of ``pid`` run on these processors; a program can undo that."""
    each(pid, lambda one: os.sched_setaffinity(one, processors))


def each(pid: int, action: Callable[[int], object]) -> None:
    """Do something to every process in the container of ``pid``, those included that one has
    forked meanwhile: what it was set before, they inherit.

    Who forks faster than we look, and goes on so, keeps a few that are left as they are.
    """
    done: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for _ in range(_MOST_LOOKS):
            new = set(members(pid)) - done
            if not new:
                return
            for one in new:
                with suppress(ProcessLookupError):
                    action(one)
            done |= new


def stuck(pid: int) -> str:
    """In words, who is left in a container that was killed: ``process 4711 (cat, state D)``."""
    found = []
    for one in members(pid):
        with suppress(OSError, IndexError):
            name = Path(f"/proc/{one}/comm").read_text().strip()
            found.append(f"{one} ({name}, state {stat_fields(f'/proc/{one}/stat')[0]})")
    return f"process {' and '.join(found)}"


def stat_fields(file: str) -> list[str]:
    """The fields of proc_pid_stat(5) after the name: the state, the parent, and on."""
    return Path(file).read_text().rpartition(")")[2].split()


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def _namespace_of(pid: int) -> str:
    """The same of a process of ours: where it may not be looked at, it is just ending."""
    until = time.monotonic() + _ENDS_WITHIN_S
    while True:
        try:
            return _namespace(pid)
        except PermissionError:
            if stat_fields(f"/proc/{pid}/stat")[0] in "ZX":
                raise ProcessLookupError from None
            if time.monotonic() > until:
                raise
            time.sleep(0.001)
