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


@record
class Usage:
    """What a container used, all its processes together.

    Where no cgroup counts, those that nobody waited for are left out, and ``peak_memory_bytes`` is
    that of the largest process.
    """

    cpu_seconds: float
    peak_memory_bytes: int
