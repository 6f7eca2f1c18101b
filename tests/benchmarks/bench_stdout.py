"""100 MB of short lines through the relay, to a client that reads them as they come."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from bench_memory import MIB, family
from kernels import IPYKERNEL, OURS, Kernel
from measure import Result, bound, compare, report
from prepared import IPYKERNEL as WITH_IPYKERNEL
from prepared import image

ROUNDS = 6
LINE, LINES = 80, 1_250_000
PRINT = f"for n in range({LINES}): print(f'{{n:0{LINE - 1}d}}')"
AT_MOST_MIB = 200


def flood(kernel: Kernel) -> float:
    """Seconds for all of it; every line must come, in its order."""
    start = time.perf_counter()
    msg_id = kernel.send(PRINT)
    texts = [m["content"]["text"] for m in kernel.outputs(msg_id) if m["msg_type"] == "stream"]
    kernel.reply(msg_id)
    took = time.perf_counter() - start
    text = "".join(texts)
    assert len(text) == LINE * LINES
    assert text[-LINE:] == f"{LINES - 1:0{LINE - 1}d}\n"
    assert text[LINE * LINES // 2 :][:LINE] == f"{LINES // 2:0{LINE - 1}d}\n"
    return took


def peak_mib(kernel: Kernel) -> float:
    """What the process that relays ever had in memory, and the share of those around it."""
    *others, worker = sorted(family(kernel), key=lambda process: process.memory_info().rss)
    status = Path(f"/proc/{worker.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    return (peak + sum(process.memory_full_info().pss for process in others)) / MIB


def results() -> Iterator[Result]:
    tag = image("ipykernel", WITH_IPYKERNEL)
    size = LINE * LINES // 1_000_000
    with Kernel(*OURS) as ours, Kernel(*IPYKERNEL) as direct:
        ours.execute(f"%base {tag}")
        yield compare(
            f"{size} MB of stdout in lines of {LINE} bytes",
            lambda: flood(ours),
            lambda: flood(direct),
            at_most=1 / 0.9,
            rounds=ROUNDS,
            note="s against ipykernel on the host",
        )
        peak = [peak_mib(ours)]
    yield bound(f"outer kernel's peak with {size} MB", peak, at_most=AT_MOST_MIB, note="MiB")


if __name__ == "__main__":
    report(results())
