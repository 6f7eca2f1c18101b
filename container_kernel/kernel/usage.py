"""usage_reply: what the session's container uses, as jupyter-resource-usage shows it.

ipykernel answers too, but what it can see from in there is its own processes and the memory of the
whole host; the container's limit, and what runs beside the kernel, only this side knows.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..runtime.processes import members
from .wire import Dict

if TYPE_CHECKING:
    from ..runtime.container import Container

_TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Remembers the processor time last seen: a percentage needs two looks."""

    def __init__(self) -> None:
        self._cpu: tuple[float, float] | None = None
        self._host: tuple[int, int] | None = None

    def read(self, container: Container | None) -> Dict:
        """The content of a usage_reply. Without a container it is this process's own usage."""
        pids = members(container.pid) if container is not None else [os.getpid()]
        used = sum(map(_memory_bytes, pids))
        found = {
            "status": "ok",
            "hostname": os.uname().nodename,
            "pid": os.getpid() if container is None else container.pid,
            "kernel_cpu": self._kernel_percent(sum(map(_cpu_seconds, pids))),
            "kernel_memory": used,
            "cpu_count": os.cpu_count(),
            "host_virtual_memory": _memory(container.memory_bytes if container else None, used),
        }
        percent = self._host_percent()
        return found if percent is None else {**found, "host_cpu_percent": percent}

    def _kernel_percent(self, seconds: float) -> float:
        now = time.monotonic()
        before, self._cpu = self._cpu, (now, seconds)
        if before is None or now <= before[0]:
            return 0.0
        return round(max(0.0, 100 * (seconds - before[1]) / (now - before[0])), 1)

    def _host_percent(self) -> float | None:
        """What all processors did since the last look; None at the first."""
        with open("/proc/stat") as file:
            times = [int(word) for word in file.readline().split()[1:9]]
        total, idle = sum(times), times[3] + times[4]
        before, self._host = self._host, (total, idle)
        if before is None or total <= before[0]:
            return None
        return round(100 * (1 - (idle - before[1]) / (total - before[0])), 1)


def _memory(limit: int | None, used: int) -> Dict:
    """The fields psutil names; the container's limit is all there is, where it has one."""
    with open("/proc/meminfo") as file:
        lines = (line.split() for line in file)
        host = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
    total, available = host["MemTotal"], host["MemAvailable"]
    if limit is not None and limit < total:
        total, available = limit, max(0, min(available, limit - used))
    taken = total - available
    percent = round(100 * taken / total, 1)
    free = min(available, host["MemFree"])
    return {
        "total": total,
        "available": available,
        "percent": percent,
        "used": taken,
        "free": free,
    }


def _memory_bytes(pid: int) -> int:
    """Its share of the memory it has; what several processes share is divided among them."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    except OSError:
        return 0


def _cpu_seconds(pid: int) -> float:
    """Its processor time, and that of its children that ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS
