"""What a process writes, as stream messages: soon when it is quiet, in bulk when it is not.

A server cuts off a kernel that sends more than a thousand messages a second.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable

from .loop import Loop, Timer

INTERVAL_S = 0.05
_PAUSE_S = 0.001
"""What is written in one go often comes in parts: a line, then its end."""
_BULK_BYTES = 1 << 18


class Stream:
    """Gathers bytes of one pipe and publishes them as text."""

    def __init__(self, loop: Loop, publish: Callable[[str], object]) -> None:
        self._loop = loop
        self._publish = publish
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[bytes] = []
        self._size = 0
        self._last = 0.0
        self._timer: Timer | None = None

    def write(self, data: bytes) -> None:
        """Take bytes; they are published soon."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _BULK_BYTES:
            self.flush()
        elif self._timer is None:
            wait = max(_PAUSE_S, self._last + INTERVAL_S - time.monotonic())
            self._timer = self._loop.call_later(wait, self.flush)

    def flush(self, *, final: bool = False) -> None:
        """Publish what was taken; ``final`` also half a character."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not self._parts and not final:
            return
        text = self._decoder.decode(b"".join(self._parts), final)
        self._parts.clear()
        self._size = 0
        self._last = time.monotonic()
        if text:
            self._publish(text)
