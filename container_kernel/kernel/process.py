"""An inner kernel's process: its two pipes and its end, watched from the loop."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .loop import Loop, Timer

if TYPE_CHECKING:
    from ..runtime.container import Container
    from ..runtime.ended import Exit

_CHUNK = 1 << 16
_TAIL_BYTES = 4096
_POLL_S = 0.1


class Process:
    """Reads what a container's process writes, and notices when it ends."""

    def __init__(
        self,
        container: Container,
        loop: Loop,
        on_output: Callable[[str, bytes], object],
        on_exit: Callable[[], object],
    ) -> None:
        self.container = container
        self._loop = loop
        self._on_output = on_output
        self._on_exit = on_exit
        # Duplicates: whoever ends the container, in another thread, closes its own.
        self._pipes = {"stdout": os.dup(container.stdout), "stderr": os.dup(container.stderr)}
        self._tail: deque[bytes] = deque(maxlen=64)
        self._timer: Timer | None = None
        self._pidfd: int | None = None
        for name, fd in self._pipes.items():
            os.set_blocking(fd, False)
            loop.add_reader(fd, lambda name=name: self.drain(name, limit=16))  # type: ignore[misc]
        self._watch_exit()

    def _watch_exit(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.container.pid)
        except OSError:
            self._poll()
        else:
            self._loop.add_reader(self._pidfd, self._ended)

    def _poll(self) -> None:
        if self.container.poll() is None:
            self._timer = self._loop.call_later(_POLL_S, self._poll)
        else:
            self._ended()

    def _ended(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        self._on_exit()

    def drain(self, name: str, limit: int = 1 << 20) -> None:
        """Take what has been written so far (at most ``limit`` reads, so others get a turn)."""
        fd = self._pipes.get(name)
        for _ in range(limit if fd is not None else 0):
            assert fd is not None
            try:
                data = os.read(fd, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close(name)
                return
            if name == "stderr":
                self._tail.append(data[-_TAIL_BYTES:])
            self._on_output(name, data)

    def _close(self, name: str) -> None:
        fd = self._pipes.pop(name)
        self._loop.remove_reader(fd)
        os.close(fd)

    def drain_all(self) -> None:
        """Take what has been written to either pipe so far."""
        self.drain("stdout")
        self.drain("stderr")

    def last_words(self, lines: int = 10) -> list[str]:
        """The last lines of its standard error."""
        self.drain("stderr")
        text = b"".join(self._tail)[-_TAIL_BYTES:].decode("utf-8", "replace")
        return text.splitlines()[-lines:]

    def exit(self) -> Exit | None:
        """How it ended, None if it has not."""
        return self.container.poll()

    def detach(self) -> None:
        """Stop watching; the process itself is somebody else's to end."""
        for name in list(self._pipes):
            self._close(name)
        if self._timer:
            self._timer.cancel()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


def end(container: Container, grace_s: float) -> None:
    """Wait ``grace_s`` for a container to end by itself, then kill it, and remove it."""
    with contextlib.suppress(Exception):
        if container.wait(grace_s) is None:
            container.kill()
            container.wait(5.0)
    with contextlib.suppress(Exception):
        container.delete()
