"""Cancel: how the user stops a build that is under way."""

from __future__ import annotations

import os
import threading

from ..errors import Interrupted


class Cancel:
    """Set once, by any thread; seen by the one that builds.

    ``fd`` becomes readable when it is set, for use with poll(2). It is closed with the object.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Ask the build to stop."""
        if not self._event.is_set():
            self._event.set()
            os.eventfd_write(self.fd, 1)

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
