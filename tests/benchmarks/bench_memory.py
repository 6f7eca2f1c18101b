"""What the outer kernel costs in memory while it serves a session."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from kernels import OURS, Kernel
from measure import Result, bound, report
from prepared import PYTHON, image

MIB = 1024**2
ROUNDS = 5


def family(kernel: Kernel) -> list[psutil.Process]:
    """The processes that are ours, outermost first: those that run the kernel's command line."""
    top = psutil.Process(kernel.process.pid)
    alive = [p for p in top.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    mine = [p for p in (top, *alive) if p.cmdline() == top.cmdline()]
    return sorted(mine, key=lambda process: (process.create_time(), process.pid))


def results() -> Iterator[Result]:
    tag = image("python", PYTHON)
    resident, proportional, together = [], [], []
    for _ in range(ROUNDS):
        with Kernel(*OURS) as kernel:
            kernel.execute(f"%base {tag}")
            kernel.execute("1 + 1")
            memory = [process.memory_full_info() for process in family(kernel)]
            worker = max(memory, key=lambda info: info.rss)
            resident.append(worker.rss / MIB)
            proportional.append(worker.pss / MIB)
            together.append(sum(info.pss for info in memory) / MIB)
    yield bound("outer kernel, resident", resident, at_most=45, note="MiB RSS")
    yield bound("outer kernel, its share", proportional, at_most=45, note="MiB PSS")
    yield bound("outer kernel and its supervisors", together, at_most=45, note="MiB PSS")


if __name__ == "__main__":
    report(results())
