"""Ended: how a process in a container ended, and what it used."""

from __future__ import annotations

import signal

from ..record import record
from .pressure import Hit, mib


@record
class Exit:
    """How a container or a process in it ended."""

    code: int | None
    signal: int | None = None
    out_of_memory: bool = False
    memory_limit_bytes: int | None = None
    hits: tuple[Hit, ...] = ()
    """The limits it had met when it failed."""

    def __str__(self) -> str:
        if self.out_of_memory:
            limit = self.memory_limit_bytes
            held = f" of {mib(limit)}" if limit else ""
            peak = next((f" (peak {hit.peak})" for hit in self.hits if hit.peak), "")
            return f"ran out of memory: the limit{held} was reached{peak}"
        if self.signal is not None:
            return f"was killed by {signal.Signals(self.signal).name}"
        return f"ended with exit code {self.code}"

    @property
    def status(self) -> int:
        """The exit status a shell would give: the code, or 128 and the signal's number."""
        return 128 + self.signal if self.signal is not None else self.code or 0


def describe(code: int, hits: tuple[Hit, ...], limit: int | None, *, has_init: bool) -> Exit:
    """What an exit code means (``-N`` for a signal), of a process that has met these limits.

    With an init process in front, it is that one's, and 128 and more are signals. ``limit`` is that
    of memory which is held.
    """
    if code == 0:
        return Exit(0)
    killed = any(hit.flag == "--memory" for hit in hits)
    if code < 0:
        return Exit(None, -code, killed and -code == signal.SIGKILL, limit, hits)
    number = code - 128 if has_init and code > 128 else None
    out_of_memory = killed and number == signal.SIGKILL
    known = number is not None and number in set(signal.Signals)
    return Exit(code, number if known else None, out_of_memory, limit, hits)


@record
class Usage:
    """What a container used, all its processes together.

    Where no cgroup counts, those that nobody waited for are left out, and ``peak_memory_bytes`` is
    that of the largest process.
    """

    cpu_seconds: float
    peak_memory_bytes: int
