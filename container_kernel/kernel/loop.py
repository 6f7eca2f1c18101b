"""The kernel's one loop: channels, file descriptors, timers, and calls from other threads.

``asyncio`` and ``zmq.asyncio`` cost a quarter of a second to import, and a wake-up per message; a
kernel's first reply waits for neither. ``zmq.Poller`` asks every socket at every turn, a tenth of
what we add to a cell's round trip.
"""

from __future__ import annotations

import heapq
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .frames import Channel

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
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._by_fd: dict[int, Channel] = {}
        self._channels: dict[Channel, Callback] = {}
        self._unsure: dict[Channel, None] = {}
        self._timers: list[Timer] = []
        self._calls: deque[Callback] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        self.add_reader(self._wake, self._drain_wake)

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call ``callback`` whenever ``fd`` has something to read."""
        self._readers[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> None:
        """Stop watching; harmless when it was not watched. To be called before it is closed."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def add_channel(self, channel: Channel, callback: Callback) -> None:
        """Call ``callback`` whenever a message waits in ``channel``, and now and then in vain."""
        self._channels[channel], self._by_fd[channel.fd] = callback, channel
        self._epoll.register(channel.fd, select.EPOLLIN)
        channel.unsure = self._unsure
        self._unsure[channel] = None

    def remove_channel(self, channel: Channel) -> None:
        """Stop watching; harmless when it was not watched. To be called before it is closed."""
        if self._channels.pop(channel, None) is not None:
            self._epoll.unregister(channel.fd)
            channel.unsure = {}
            del self._by_fd[channel.fd]
            self._unsure.pop(channel, None)

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
            waiting = {channel: None for channel in list(self._unsure) if channel.waits()}
            readers = []
            for fd, _ in self._epoll.poll(0 if waiting else self._timeout_s()):
                if channel := self._by_fd.get(fd):
                    waiting[channel] = None
                else:
                    readers.append(fd)
            for channel in waiting:
                if callback := self._channels.get(channel):  # none, if one before it has closed it
                    guarded(callback)
            for fd in readers:
                if reader := self._readers.get(fd):
                    guarded(reader)
            self._run_timers()
            self._run_calls()

    def stop(self) -> None:
        """Leave ``run`` after the present round."""
        self._stopped = True

    def _timeout_s(self) -> float | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if self._calls:
            return 0
        return max(0.0, self._timers[0].deadline - time.monotonic()) if self._timers else None

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
    except Exception as error:
        report("\n".join(lines_of(error)))


def lines_of(error: BaseException) -> list[str]:
    """Its traceback; its own words where no file can be opened to load what writes one."""
    try:
        import traceback  # 3 ms, for faults only
    except OSError:
        return [f"{type(error).__name__}: {error}"]
    return "".join(traceback.format_exception(error)).rstrip().split("\n")


def report(text: str) -> None:
    """Tell the server's log, each thing once."""
    if text not in _reported and len(_reported) < 1000:
        _reported.add(text)
        print(f"container_kernel: {text.rstrip()}", file=sys.stderr, flush=True)
