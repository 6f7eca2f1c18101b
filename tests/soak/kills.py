"""Where a process can be killed: at the n-th call of a kind, by strace.

strace counts the calls of each kind by themselves, in each thread: a point is a kind and a number.
"""

from __future__ import annotations

import collections
import random
from pathlib import Path

Point = tuple[str, int]
STRACE = ("strace", "-f", "-qq", "--seccomp-bpf")


def noting(calls: str, log: Path) -> tuple[str, ...]:
    """What runs a command and notes its calls of these kinds in ``log``."""
    return (*STRACE, "-o", str(log), "-e", f"trace={calls}")


def points(log: Path) -> list[Point]:
    """All points that are in ``log``, in an order that is shuffled and always the same."""
    by_thread: collections.Counter[Point] = collections.Counter()
    for line in log.read_text().splitlines():
        thread, _, rest = line.partition(" ")
        kind = rest.strip().partition("(")[0]
        if kind.isidentifier():  # no second half of a call, no signal, no end
            by_thread[kind, int(thread)] += 1
    most: dict[str, int] = {}
    for (kind, _), count in by_thread.items():
        most[kind] = max(count, most.get(kind, 0))
    found = [(kind, number) for kind in sorted(most) for number in range(1, most[kind] + 1)]
    random.Random(len(most)).shuffle(found)
    return found


def killing(point: Point) -> tuple[str, ...]:
    """What runs a command and kills whoever of it comes to that point."""
    kind, number = point
    inject = f"inject={kind}:signal=KILL:when={number}"
    return (*STRACE, "-o", "/dev/null", "-e", f"trace={kind}", "-e", inject)
