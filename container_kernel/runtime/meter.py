"""Meter: what a container uses at this moment, from its cgroup, else from its processes' /proc.

Without a cgroup, memory is the sum of the processes' shares (Pss), the peak that of the largest of
them, and processor time and bytes of those that ended and were waited for by none are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..record import field, record
from .cgroup import CgroupParent, field_of, number_in
from .processes import members, stat_fields

if TYPE_CHECKING:
    from .container import Container

_TICKS = os.sysconf("SC_CLK_TCK")
_PRESSURES = ("cpu", "memory", "io")


@record(kw_only=True)
class Use:
    """``source`` is ``cgroup v1``, ``cgroup v2`` or ``/proc``. ``pressure`` is, for ``cpu``,
    ``memory`` and ``io``, the percentage of the last ten seconds in which something waited for it
    (PSI), where the host kernel tells.
    """

    source: str
    cpu_seconds: float
    memory_bytes: int
    peak_memory_bytes: int | None
    swap_bytes: int | None
    pids: int
    read_bytes: int
    written_bytes: int
    pressure: Mapping[str, float] = field(default_factory=dict)


def read(container: Container) -> Use:
    """What ``container`` uses, all its processes together."""
    if container.cgroup is None:
        return _from_proc(container.pid)
    return _from_cgroup(container.cgroup, container.name)


def _from_cgroup(cgroup: CgroupParent, name: str) -> Use:
    def number(v1: str, v2: str, controller: str = "memory") -> int | None:
        return number_in(cgroup.file(name, controller, v1, v2))

    memory = number("memory.usage_in_bytes", "memory.current") or 0
    stat = cgroup.file(name, "memory", "memory.stat", "memory.stat")
    # The page cache that nobody has used lately is given back before anything is killed.
    idle = field_of(stat, "inactive_file" if cgroup.version == 2 else "total_inactive_file")
    swap = number("memory.memsw.usage_in_bytes", "memory.swap.current")
    if swap is not None and cgroup.version == 1:
        swap = max(0, swap - memory)
    io = cgroup.file(name, "io", "blkio.throttle.io_service_bytes_recursive", "io.stat")
    return Use(
        source=f"cgroup v{cgroup.version}",
        cpu_seconds=cgroup.cpu_seconds(name) or 0.0,
        memory_bytes=max(0, memory - idle),
        peak_memory_bytes=cgroup.peak_memory_bytes(name),
        swap_bytes=swap,
        pids=number("pids.current", "pids.current", "pids") or 0,
        read_bytes=_sum(io, r"(?:\bRead |rbytes=)(\d+)"),
        written_bytes=_sum(io, r"(?:\bWrite |wbytes=)(\d+)"),
        pressure=_pressure(cgroup.file(name, "memory", "", "")) if cgroup.version == 2 else {},
    )


def _sum(file: Path, pattern: str) -> int:
    with suppress(OSError):
        return sum(map(int, re.findall(pattern, file.read_text())))
    return 0


def _pressure(folder: Path) -> dict[str, float]:
    found = {}
    for name in _PRESSURES:
        with suppress(OSError, IndexError, ValueError):
            some = (folder / f"{name}.pressure").read_text().split("avg10=", 1)[1]
            found[name] = float(some.split()[0])
    return found


def _from_proc(pid: int) -> Use:
    cpu, memory, peak, threads, came, went = 0.0, 0, 0, 0, 0, 0
    for one in members(pid):
        with suppress(OSError, ValueError, IndexError):
            fields = stat_fields(f"/proc/{one}/stat")
            cpu += sum(map(int, fields[11:15])) / _TICKS
            threads += int(fields[17])
            memory += field_of(Path(f"/proc/{one}/smaps_rollup"), "Pss:") * 1024
            peak = max(peak, field_of(Path(f"/proc/{one}/status"), "VmHWM:") * 1024)
            io = Path(f"/proc/{one}/io")
            came += field_of(io, "read_bytes:")
            went += field_of(io, "write_bytes:")
    return Use(
        source="/proc",
        cpu_seconds=cpu,
        memory_bytes=memory,
        peak_memory_bytes=peak,
        swap_bytes=None,
        pids=threads,
        read_bytes=came,
        written_bytes=went,
    )


def shm_bytes(container: Container) -> int | None:
    """What is in ``/dev/shm``; None where that cannot be seen."""
    with suppress(OSError):
        found = os.statvfs(f"/proc/{container.pid}/root/dev/shm")
        return (found.f_blocks - found.f_bfree) * found.f_frsize
    return None


def most_files(container: Container) -> int:
    """The open files of the process that has most of them."""
    most = 0
    for one in members(container.pid):
        with suppress(OSError):
            most = max(most, len(os.listdir(f"/proc/{one}/fd")))
    return most


# ---------------------------------------------------------------- for those who collect

_Value = Callable[[Use], "float | None"]
_METRICS: tuple[tuple[str, str, str, _Value], ...] = (
    ("cpu_seconds_total", "counter", "Processor time.", lambda use: use.cpu_seconds),
    ("memory_bytes", "gauge", "Memory in use.", lambda use: use.memory_bytes),
    ("memory_peak_bytes", "gauge", "Most memory at one time.", lambda use: use.peak_memory_bytes),
    ("swap_bytes", "gauge", "Swap in use.", lambda use: use.swap_bytes),
    ("pids", "gauge", "Processes and threads.", lambda use: use.pids),
    ("read_bytes_total", "counter", "Bytes read from disks.", lambda use: use.read_bytes),
    ("written_bytes_total", "counter", "Bytes written to disks.", lambda use: use.written_bytes),
)


def prometheus(uses: Mapping[str, Use], labels: Mapping[str, str]) -> str:
    """Prometheus' text format 0.0.4; ``uses`` is by stage, ``labels`` are put on each value."""
    lines = []
    for name, kind, about, value in _METRICS:
        full = f"container_kernel_{name}"
        lines += [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]
        for stage, use in uses.items():
            if (found := value(use)) is not None:
                pairs = {**labels, "stage": stage}.items()
                inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in pairs)
                lines.append(f"{full}{{{inside}}} {found:.10g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
