"""Limits: what a container may use, and by what this host holds that.

A cgroup holds a limit for all of a container together. Where there is none, an rlimit
(getrlimit(2)) holds what it can, for each process alone, and the rest is not held; `how` says so
in words.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..record import record
from .cgroup import CgroupParent

_MOST_QUEUE_BYTES = 819_200  # Linux's own default of RLIMIT_MSGQUEUE
_MOST_TIMERS = 8192
_WEIGHT_FILES = {1: ("blkio.bfq.weight", "blkio.weight"), 2: ("io.weight", "io.bfq.weight")}
NOT_HELD = "not held"


@record(kw_only=True)
class Limits:
    """What a container may use. ``None`` (of ``cpuset``: nothing) means the host's own limit."""

    memory_bytes: int | None = None
    swap_bytes: int = 0
    """Beside the memory; 0 keeps all of it in memory."""
    pids: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    """Its share where others want the processors too; 1024 is everybody's."""
    cpuset: tuple[int, ...] = ()
    """The processors it may run on."""
    io_bps: int | None = None
    """Bytes a second read from ``disk``, and as many written to it."""
    io_weight: int | None = None
    """Its share where others use the disk too, 1 to 10000; 100 is everybody's."""
    disk: Path | None = None
    """A folder on the disk that ``io_bps`` is about."""
    open_files: int = 1024 * 1024
    shm_bytes: int = 64 * 1024**2
    scratch_bytes: int | None = None
    """All that run cells write outside of the notebook's folder; it is kept in memory then."""
    timeout_s: float | None = None
    """The longest that one cell or command may take."""


@record
class Held:
    """What the OCI runtime is told of the limits."""

    rlimits: Sequence[dict[str, Any]]
    cgroups_path: str | None = None
    resources: dict[str, Any] | None = None


def hold(limits: Limits, cgroup: CgroupParent | None, name: str, *, data: bool) -> Held:
    """The limits of the container ``name`` as parts of a runtime spec (runtime-spec 1.0.2).

    ``data`` is whether the runtime is to set RLIMIT_DATA where no cgroup counts memory.
    """
    if cgroup is None:
        return Held(rlimits(limits, nproc=True, data=data))
    return Held(rlimits(limits), cgroup.child(name), resources(limits, cgroup))


def rlimits(limits: Limits, *, nproc: bool = False, data: bool = False) -> list[dict[str, Any]]:
    """Within this process's hard limits: raising one takes a capability we may lack."""
    files = clamped(resource.RLIMIT_NOFILE, limits.open_files)
    found = [
        ("RLIMIT_NOFILE", min(1024, files), files),
        ("RLIMIT_CORE", 0, 0),
        _same("MSGQUEUE", _MOST_QUEUE_BYTES),
        _same("SIGPENDING", _MOST_TIMERS),
    ]
    if nproc and limits.pids is not None:
        found.append(_same("NPROC", limits.pids))
    if data and limits.memory_bytes is not None:
        found.append(_same("DATA", limits.memory_bytes))
    return [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in found]


def _same(name: str, value: int) -> tuple[str, int, int]:
    most = clamped(getattr(resource, f"RLIMIT_{name}", _SIGPENDING), value)
    return f"RLIMIT_{name}", most, most


_SIGPENDING = 11  # which the resource module has no name for, see setrlimit(2)


def clamped(number: int, value: int) -> int:
    """``value``, or this process's hard limit of resource ``number`` where that is less."""
    hard = resource.getrlimit(number)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def resources(limits: Limits, cgroup: CgroupParent) -> dict[str, Any]:
    """``linux.resources``: what controllers of this host hold."""
    found: dict[str, Any] = {}
    if limits.memory_bytes is not None:
        # The spec counts swap together with memory: the same number means no swap.
        together = limits.memory_bytes + limits.swap_bytes
        found["memory"] = {"limit": limits.memory_bytes, "swap": together}
    if limits.pids is not None:
        found["pids"] = {"limit": limits.pids}
    cpu: dict[str, Any] = {}
    if limits.cpus is not None and cgroup.has("cpu"):
        cpu |= {"quota": max(1000, int(limits.cpus * 100_000)), "period": 100_000}
    if limits.cpu_shares is not None and cgroup.has("cpu"):
        cpu["shares"] = limits.cpu_shares
    if limits.cpuset and cgroup.has("cpuset"):
        cpu["cpus"] = ",".join(map(str, limits.cpuset))
    if cpu:
        found["cpu"] = cpu
    if block := _block_io(limits, cgroup):
        found["blockIO"] = block
    if unified := _unified(limits, cgroup):
        found["unified"] = unified
    return found


def _unified(limits: Limits, cgroup: CgroupParent) -> dict[str, str]:
    """What is for cgroup v2 alone: a runtime would take the spec's weight for one of v1's range,
    where 500 is everybody's.
    """
    if cgroup.version == 1 or limits.io_weight is None or not holds_weight(cgroup):
        return {}
    file = next(name for name in _WEIGHT_FILES[2] if cgroup.offers("io", name))
    return {file: str(limits.io_weight)}


def _block_io(limits: Limits, cgroup: CgroupParent) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.io_weight is not None and cgroup.version == 1 and holds_weight(cgroup):
        found["weight"] = min(1000, max(10, limits.io_weight))  # the range of the spec
    if limits.io_bps is not None and cgroup.has("io") and (disk := _disk(limits.disk)):
        rate = [{"major": disk[0], "minor": disk[1], "rate": limits.io_bps}]
        found |= {"throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate}
    return found


def holds_weight(cgroup: CgroupParent) -> bool:
    """Whether the disks' scheduler here shares by weight."""
    return any(cgroup.offers("io", name) for name in _WEIGHT_FILES[cgroup.version])


def _disk(folder: Path | None) -> tuple[int, int] | None:
    """The whole disk that ``folder`` is on; None where no single one is known."""
    if folder is None:
        return None
    device = folder.stat().st_dev
    sysfs = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    try:
        disk = sysfs.resolve(strict=True)
        number = (disk.parent if (disk / "partition").exists() else disk) / "dev"
        major, _, minor = number.read_text().strip().partition(":")
        return int(major), int(minor)
    except (OSError, ValueError):
        return None


def fewer_files(limits: Limits) -> str:
    """That it is fewer open files than ``limits`` say, in words; empty when it is not."""
    most = clamped(resource.RLIMIT_NOFILE, limits.open_files)
    is_less = most < limits.open_files
    return f", which this host allows us to set to {most} at most" if is_less else ""


def how(limits: Limits, cgroup: CgroupParent | None) -> dict[str, str]:
    """By what each limit is held, by field; in words, ``NOT_HELD`` where it is not."""
    words = {
        "open_files": f"RLIMIT_NOFILE, for each process{fewer_files(limits)}",
        "shm_bytes": "size of the tmpfs",
        "scratch_bytes": "size of the tmpfs",
        "timeout_s": "an interrupt, then SIGKILL",
    }
    if cgroup is None:
        return words | {
            "memory_bytes": "RLIMIT_DATA, for each process, not for all together",
            "pids": "RLIMIT_NPROC, for each user in the container",
            "cpuset": "sched_setaffinity, which a program can undo",
            **dict.fromkeys(("swap_bytes", "cpus", "io_bps", "io_weight"), NOT_HELD),
        }
    by = f"cgroup v{cgroup.version}"
    throttle = f"{by}, reads and direct writes" if cgroup.version == 1 else by
    return words | {
        "memory_bytes": by,
        "swap_bytes": by,
        "pids": by,
        "cpus": by if cgroup.has("cpu") else NOT_HELD,
        "cpuset": by if cgroup.has("cpuset") else "sched_setaffinity, which a program can undo",
        "io_bps": throttle if cgroup.has("io") and _disk(limits.disk) else NOT_HELD,
        "io_weight": by if holds_weight(cgroup) else NOT_HELD,
    }
