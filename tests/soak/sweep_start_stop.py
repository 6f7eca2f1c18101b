"""Containers started and ended again and again: nothing is left of them, and we do not grow.

A case is a fresh container and, at each tenth, another live one. What is counted, from outside, is
what the kernel's processes hold: mounts, cgroups, processes, descriptors, sockets, memory.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from container_kernel.runtime.cgroup import field_of
from container_kernel.runtime.processes import stat_fields
from tests.kernel.test_real import RealKernel

CASES, SAMPLE = 500, 12
WARM = 60
"""So many cases fill caches and pools; memory is compared from there on."""
MOST_DRIFT_KIB = 1024
PATIENCE_S = 10


def below(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            text = Path(f"/proc/{one}/task/{one}/children").read_text()
            found += map(int, text.split())
    return found


def is_dead(pid: int) -> bool:
    """Ended, and nobody has waited for it yet: they are buried with the next container."""
    with suppress(OSError, IndexError):
        return stat_fields(f"/proc/{pid}/stat")[0] == "Z"
    return True


class Traces:
    """What the processes of one kernel hold."""

    def __init__(self, pid: int, runtime_dir: str) -> None:
        self.pid = pid
        (self.run_dir,) = Path(runtime_dir).glob("container-kernel/*-*")
        # The supervisor, the reaper, the worker: the last is where everything happens.
        self.worker = below(pid)[2]
        self.inside = Path(f"/proc/{self.worker}/root{self.run_dir}")  # it is a mount of theirs

    def count(self) -> dict[str, int]:
        folder = Path(f"/proc/{self.worker}")
        links = []
        for fd in os.listdir(folder / "fd"):
            with suppress(OSError):
                links.append(os.readlink(folder / "fd" / fd))
        return {
            "mounts": len((folder / "mountinfo").read_text().splitlines()),
            "processes": sum(not is_dead(one) for one in below(self.pid)),
            "descriptors": len(links),
            "sockets": sum(link.startswith("socket:") for link in links),
            "folders": sum(1 for _ in self.inside.glob("*/*")),
            "threads": len(os.listdir(folder / "task")),
            "cgroups": sum(1 for _ in Path("/sys/fs/cgroup").glob(self.cgroups())),
        }

    def cgroups(self) -> str:
        return f"*/container-kernel/{self.run_dir.name}/c[0-9]*"

    def memory_kib(self) -> int:
        return field_of(Path(f"/proc/{self.worker}/smaps_rollup"), "Private_Dirty:")


@contextmanager
def opened() -> Iterator[Callable[[int, Random], None]]:
    runtime = os.environ.get("CONTAINER_KERNEL_RUNTIME", "")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        kernel = RealKernel(Path(folder), Path(home), runtime)
        try:
            assert kernel.run("%base busybox")[0]["status"] == "ok"
            for _ in range(3):
                cycle(kernel, 10)
            traces = Traces(kernel.pid, kernel.runtime_dir)
            first: dict[str, int] = {}
            before: list[int] = []

            def case(number: int, chance: Random) -> None:
                cycle(kernel, number)
                if number % 10:
                    return
                if not first:
                    time.sleep(0.5)
                    first.update(traces.count())
                    return
                wait_for(traces, first)
                if number >= WARM:
                    before.append(traces.memory_kib())
                    drift = before[-1] - before[0]
                    assert drift <= MOST_DRIFT_KIB, f"{drift} KiB more after {number} cases"

            yield case
        finally:
            kernel.close()


def cycle(kernel: RealKernel, number: int) -> None:
    """Start and end containers."""
    script = ("true", "sleep 60 & true", "exit 3", "kill -9 $$")[number % 4]
    kernel.run(f"%%run\n{script}")
    if number % 10 == 0:
        assert kernel.run(f"%limits --restart --io {10 + number % 7}m")[0]["status"] == "ok"
        assert kernel.run("sleep 60 & echo $$ > /tmp/x")[0]["status"] == "ok"


def wait_for(traces: Traces, first: dict[str, int]) -> None:
    """Until nothing more is there than at first; what is, is removed behind the scenes."""
    found: dict[str, int] = {}

    def is_flat() -> bool:
        found.update(traces.count())
        return all(found[name] <= first[name] for name in first)

    deadline = time.monotonic() + PATIENCE_S
    while not is_flat():
        assert time.monotonic() < deadline, f"at first {first}, now {found}"
        time.sleep(0.05)
