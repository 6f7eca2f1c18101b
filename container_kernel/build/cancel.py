"""Cancel: how the user stops a build that is under way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from ..errors import Interrupted


class Cancel:
    """Set once, by any thread; seen by the one that builds.

    ``fd`` becomes readable when it is set, for use with poll(2). It is closed with the object.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: list[Callable[[], object]] = []
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Ask the build to stop."""
        if not self._event.is_set():
            self._event.set()
            os.eventfd_write(self.fd, 1)
            for callback in self._callbacks:
                callback()

    def when_set(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when somebody asks, at once if that was before; twice at the worst."""
        self._callbacks.append(callback)
        if self.is_set:
            callback()

    @property
    def is_set(self) -> bool:
        """True once somebody asked."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Interrupted` when the build is to stop."""
        if self.is_set:
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Sleep, or raise `Interrupted` as soon as the build is to stop."""
        if self._event.wait(seconds):
            raise Interrupted

    def __del__(self) -> None:
        os.close(self.fd)
