"""The flags that set limits: one table for ``%limits``, ``%%run``, ``exec`` and ``shell``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..record import record
from . import values


@record
class LimitFlag:
    """A flag, the field of `runtime.limits.Limits` that it sets, and how it is read."""

    name: str
    field: str
    value: str
    help: str
    read: Callable[[str], object]


LIMIT_FLAGS = (
    LimitFlag("memory", "memory_bytes", "SIZE", "the most memory, for example 512m or 2g",
              values.memory),
    LimitFlag("swap", "swap_bytes", "SIZE", "swap beside the memory; default 0, none", values.swap),
    LimitFlag("cpus", "cpus", "NUMBER", "how many processors, for example 1.5", values.cpus),
    LimitFlag("cpuset", "cpuset", "LIST", "which processors, for example 0-1", values.cpuset),
    LimitFlag("pids", "pids", "NUMBER", "the most processes and threads", values.count),
    LimitFlag("io", "io_bps", "RATE", "bytes a second of the disk, for example 20m",
              values.rate),
    LimitFlag("io-weight", "io_weight", "NUMBER", "its share of the disk; others have 100",
              values.weight),
    LimitFlag("files", "open_files", "NUMBER", "the most open files of a process", values.files),
    LimitFlag("shm", "shm_bytes", "SIZE", "size of /dev/shm, for example 1g", values.file_system),
    LimitFlag("scratch", "scratch_bytes", "SIZE",
              "the most written outside /work; kept in memory", values.file_system),
    LimitFlag("timeout", "timeout_s", "TIME", "stop after this long, for example 30s or 5m",
              values.duration),
)  # fmt: skip


def asked(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Limits`` that these flags set."""
    found = {one.field: flags.get(one.name) for one in LIMIT_FLAGS}
    return {name: value for name, value in found.items() if value is not None}
