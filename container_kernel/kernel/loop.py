"""The kernel's one loop: sockets, file descriptors, timers, and calls from other threads.

``asyncio`` and ``zmq.asyncio`` cost a quarter of a second to import, and a wake-up per message; a
kernel's first reply waits for neither.
"""

from __future__ import annotations

import heapq
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

Callback = Callable[[], object]


class Timer:
    """A call that will be made later, unless it is cancelled."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callback) -> None:
        self.deadline = deadline
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Do not call; harmless when it has happened."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.deadline < other.deadline


class Loop:
    """Calls back, one at a time, in the thread that runs it."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._readers: dict[Any, Callback] = {}
        self._timers: list[Timer] = []
        self._calls: deque[Callback] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        self.add_reader(self._wake, self._drain_wake)

    def add_reader(self, source: zmq.Socket[bytes] | int, callback: Callback) -> None:
        """Call ``callback`` whenever ``source`` has something to read."""
        self._readers[source] = callback
        self._poller.register(source, zmq.POLLIN)

    def remove_reader(self, source: zmq.Socket[bytes] | int) -> None:
        """Stop watching; harmless when it was not watched."""
        if self._readers.pop(source, None) is not None:
            self._poller.unregister(source)

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        """Call once, ``delay_s`` from now. Only from the loop's own thread."""
        timer = Timer(time.monotonic() + delay_s, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Call as soon as possible; from any thread and from signal handlers."""
        self._calls.append(callback)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Serve until ``stop``. A callback's exception is reported, never raised."""
        while not self._stopped:
            for source, _ in self._poller.poll(self._timeout_ms()):
                callback = self._readers.get(source)
                if callback is not None:
                    guarded(callback)
            self._run_timers()
            self._run_calls()

    def stop(self) -> None:
        """Leave ``run`` after the present round."""
        self._stopped = True

    def _timeout_ms(self) -> int | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if self._calls:
            return 0
        if not self._timers:
            return None
        return max(0, int((self._timers[0].deadline - time.monotonic()) * 1000) + 1)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].deadline <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                guarded(callback)

    def _run_calls(self) -> None:
        for _ in range(len(self._calls)):
            guarded(self._calls.popleft())

    def _drain_wake(self) -> None:
        os.eventfd_read(self._wake)


_reported: set[str] = set()


def guarded(callback: Callback) -> None:
    """Call; whatever it raises is a fault of ours that must not end the kernel."""
    try:
        callback()
    except Exception:
        import traceback  # 3 ms, for faults only

        report(traceback.format_exc())


def report(text: str) -> None:
    """Tell the server's log, each thing once."""
    if text not in _reported and len(_reported) < 1000:
        _reported.add(text)
        print(f"container_kernel: {text.rstrip()}", file=sys.stderr, flush=True)
