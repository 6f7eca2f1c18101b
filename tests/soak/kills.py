"""Where a process can be killed: at the n-th call of a kind, by strace.

strace counts the calls of each kind by themselves, in each thread: a point is a kind and a number.
It must not be told --seccomp-bpf: with it, errors are injected (strace 6.1), and signals are not.
"""

from __future__ import annotations

import collections
import random
from pathlib import Path

Point = tuple[str, int]
_PUBLISHING = ("syncfs", "rename")
_DIED = "+++ killed by SIGKILL +++"


def noting(calls: str, log: Path) -> tuple[str, ...]:
    """What runs a command and notes its calls of these kinds in ``log``."""
    return ("strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls}")


def points(log: Path) -> list[Point]:
    """All points that are in ``log``, shuffled in the same way each time; what publishes is first,
    so that samples meet it.
    """
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
    return sorted(found, key=lambda point: point[0] not in _PUBLISHING)


def killing(point: Point, log: Path) -> tuple[str, ...]:
    """What runs a command and kills whoever of it comes to that point."""
    kind, number = point
    return (*noting(kind, log), "-e", f"inject={kind}:signal=KILL:when={number}")


class Misses:
    """Whether a sweep meets what it is to kill: how often a thread does a thing varies a little."""

    def __init__(self) -> None:
        self._runs = 0
        self._missed: list[Point] = []

    def note(self, point: Point, log: Path) -> None:
        """Count a run that is over; fails when too many of them met nobody."""
        self._runs += 1
        if _DIED not in log.read_text():
            self._missed.append(point)
        assert len(self._missed) <= 1 + self._runs / 10, f"nobody died at {self._missed}"
