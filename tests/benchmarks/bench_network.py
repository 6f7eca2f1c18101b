"""A build step on the default network, or on a list of hosts, against one without a network."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

from kernels import OURS, Kernel
from measure import Result, compare, report, skipped
from prepared import PLACE, use_own_store

from container_kernel.runtime.pasta import why_not

ROUNDS = 20
_numbers = itertools.count(int(time.time() * 1000))


def step(kernel: Kernel, flags: str) -> Callable[[], float]:
    """A new step each time, in a kernel that is open: what its user waits for."""

    def once() -> float:
        start = time.perf_counter()
        kernel.execute(f"%%build {flags}\necho {next(_numbers)}", cell_id="step")
        return time.perf_counter() - start

    return once


def results() -> Iterator[Result]:
    goal = "G1e a step on a network, ours without"
    lack = why_not()
    use_own_store()
    PLACE.mkdir(parents=True, exist_ok=True)
    with Kernel(*OURS, cwd=PLACE) as kernel:
        kernel.execute("%base busybox", cell_id="base")
        without = step(kernel, "--net none")
        for name, flags, at_most in (
            ("default (pasta)", "", 1.2),
            ("listed", "--net example.org", 1.5),
        ):
            if lack and not flags:
                yield skipped(goal, lack[0])
                continue
            yield compare(
                f"{goal}: {name}",
                step(kernel, flags),
                without,
                at_most=at_most,
                rounds=ROUNDS,
                note="s",
            )


if __name__ == "__main__":
    report(results())
