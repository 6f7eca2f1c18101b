"""From an interrupt_request to the cell's reply, against ipykernel directly."""

from __future__ import annotations

from collections.abc import Iterator

from kernels import IPYKERNEL, OURS, Kernel
from measure import Result, compare, report
from prepared import IPYKERNEL as WITH_IPYKERNEL
from prepared import image

ROUNDS = 40
LOOPS = {"a tight loop": "while True: pass", "a sleep": "import time\nwhile True: time.sleep(100)"}


def results() -> Iterator[Result]:
    tag = image("ipykernel", WITH_IPYKERNEL)
    with Kernel(*OURS) as ours, Kernel(*IPYKERNEL) as direct:
        ours.execute(f"%base {tag}")
        for name, code in LOOPS.items():
            yield compare(
                f"interrupt of {name} to its traceback",
                lambda code=code: ours.interrupt(code),
                lambda code=code: direct.interrupt(code),
                at_most=1.2,
                rounds=ROUNDS,
                note="s against ipykernel on the host",
            )


if __name__ == "__main__":
    report(results())
