"""Idle: containers of which nothing was wanted for a while stand still until something is.

A message that comes meanwhile is passed on as ever: it waits in a socket or a pipe until its reader
goes on, so nothing is held back and nothing overtakes. Stopping, and letting go on, is done by the
worker, in order with all else that it does to containers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .front import Request
from .loop import Loop, Timer, report
from .worker import Worker

if TYPE_CHECKING:
    from ..runtime.container import Container

_ASK_NOBODY = {"kernel_info_request", "usage_request"}
"""Requests that never reach a container."""
Take = Callable[[Request], object]


class Idle:
    """Stops ``containers()`` after a time in which ``is_busy()`` was false and no request came."""

    def __init__(
        self,
        loop: Loop,
        worker: Worker,
        is_busy: Callable[[], bool],
        containers: Callable[[], Sequence[Container]],
    ) -> None:
        self._loop = loop
        self._worker = worker
        self._is_busy = is_busy
        self._containers = containers
        self._after_s: float | None = None
        self._last = 0.0
        self._timer: Timer | None = None
        self._pause: _Pause | None = None

    def start(self, after_s: float | None) -> None:
        """Be active from now on; None is never."""
        self._after_s = after_s
        self.touch()

    def stop(self) -> None:
        """Let everything go on, for good."""
        self._after_s = None
        self.touch()

    def before(self, take: Take) -> Take:
        """``take``, with everything going on before what it is given needs that."""

        def wrapped(request: Request) -> None:
            if request.msg_type not in _ASK_NOBODY:
                self.touch()
            take(request)

        return wrapped

    def touch(self) -> None:
        """Something was wanted just now."""
        self._last = time.monotonic()
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.is_over = True
            self._worker.submit(pause.end, lambda *_: None)
        if self._after_s is not None and self._timer is None:
            self._look_in(self._after_s)

    def _look_in(self, delay_s: float) -> None:
        self._timer = self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._after_s is None:
            return
        if self._is_busy():
            self._last = time.monotonic()
        left_s = self._last + self._after_s - time.monotonic()
        if left_s > 0:
            self._look_in(left_s)
            return
        self._pause = _Pause(self._containers())
        self._worker.submit(self._pause.begin, _tell)


class _Pause:
    """One standstill; ``begin`` and ``end`` are the worker's to call, in this order."""

    def __init__(self, containers: Sequence[Container]) -> None:
        self.is_over = False
        self._containers = containers
        self._go_on: list[Callable[[], None]] = []

    def begin(self) -> None:
        from ..errors import HostError
        from ..runtime.quiesce import stop

        for container in self._containers:
            if self.is_over:
                return
            try:
                self._go_on.append(stop(container))
            except (HostError, OSError) as error:  # it has ended, or it goes on
                report(f"idle_freeze: {error}")

    def end(self) -> None:
        while self._go_on:
            self._go_on.pop()()


def _tell(_: object, error: BaseException | None) -> None:
    if error is not None:
        report(f"idle_freeze: {error!r}")
