"""Kernel start to the first result, against ipykernel on the host.

A notebook gets its image from a first cell, or it was built before and is opened again, or its
kernel is a frozen image. Its layers are there in any case: what is timed is the kernel, the
container and the kernel in it. A Jupyter server has a process waiting for each next kernel (see
`spare`), where a program that starts one kernel has none, and ipykernel never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kernels import IPYKERNEL, OURS, Kernel, seconds_to_first_result, seconds_to_introduction
from measure import Result, bound, judge, report, take_turns
from prepared import IPYKERNEL as WITH_IPYKERNEL
from prepared import PYTHON, frozen, image, notebook

ROUNDS = 30
AT_MOST_S = 0.3


def opened_before(name: str, cells: tuple[str, ...]) -> dict[str, Any]:
    """How a server starts the kernel of a notebook whose cells were built in an earlier one."""
    path = notebook(f"again-{name}", *cells)
    again = {"cwd": path.parent, "JPY_SESSION_NAME": path.name}
    with Kernel(*OURS, **again) as kernel:
        for number, cell in enumerate(cells):
            kernel.execute(cell, cell_id=f"cell-{number}")
    return again


def starts(name: str, cells: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], float]]]:
    """The ways to the image ``name``."""
    tag = image(name, cells)
    command = frozen(tag)
    again = opened_before(name, cells)
    yield "%base", lambda: seconds_to_first_result(*OURS, cells=[f"%base {tag}"])
    yield "opened again", lambda: seconds_to_first_result(*OURS, **again)
    yield "frozen", lambda: seconds_to_first_result(*command)
    base = [f"%base {tag}"]
    yield "%base, in a server", lambda: seconds_to_first_result(*OURS, cells=base, in_server=True)
    yield "again, in a server", lambda: seconds_to_first_result(*OURS, in_server=True, **again)
    yield "frozen, in a server", lambda: seconds_to_first_result(*command, in_server=True)


def results() -> Iterator[Result]:
    yield bound(
        "outer kernel's start to kernel_info_reply",
        [seconds_to_introduction(*OURS) for _ in range(ROUNDS)],
        at_most=AT_MOST_S,
        note="s",
    )
    for name, tag, cells, goals in (
        ("ipykernel in the image", "ipykernel", WITH_IPYKERNEL, (1.25,)),
        ("agent", "python", PYTHON, (0.5, 0.35)),
    ):
        for way, start in starts(tag, cells):
            goal = f"kernel start to first result, {name}, {way}"
            peer = lambda: seconds_to_first_result(*IPYKERNEL)  # noqa: E731
            pairs = take_turns(goal, start, peer, rounds=ROUNDS)
            for at_most in goals if way == "%base" else goals[-1:]:
                note = "s against ipykernel on the host"
                yield judge(goal, pairs, at_most=at_most, note=note)


if __name__ == "__main__":
    report(results())
