"""A command in a container, watched to its end: its output as it comes, its exit status."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import syscalls
from ..errors import CommandFailed, Interrupted

if TYPE_CHECKING:
    from ..build.cancel import Cancel
    from ..runtime.container import Container

_INTERVAL_S = 0.05
_GRACE_S = 2.0
_CHUNK = 1 << 16

OnText = Callable[[str, str], object]
"""Takes ``stdout`` or ``stderr`` and text of it."""


def pump(
    container: Container, on_text: OnText, cancel: Cancel, *, timeout_s: float | None = None
) -> None:
    """Pass on what ``container`` writes until it ends.

    An interrupt is handed on as SIGINT; what does not end within two seconds of it is killed.

    Raises:
        CommandFailed: it ended with another status than 0, or took longer than ``timeout_s``.
        Interrupted: it was cancelled.
    """
    deadline = time.monotonic() + timeout_s if timeout_s else None
    pipes = _Pipes(container, on_text)
    pidfd = os.pidfd_open(container.pid)
    interrupted_at = None
    is_late = False
    try:
        while not pipes.wait(pidfd, None if interrupted_at else cancel.fd):
            now = time.monotonic()
            if interrupted_at is None and cancel.is_set:
                interrupted_at = now
                container.interrupt()
            is_late = is_late or (deadline is not None and now > deadline)
            if is_late or (interrupted_at and now > interrupted_at + _GRACE_S):
                container.kill()
    finally:
        os.close(pidfd)
    if interrupted_at is not None:
        raise Interrupted("interrupted")
    if is_late:
        raise CommandFailed(
            f"the command was stopped after {timeout_s:g} s, the limit of its time",
            124,
            hint="give it more with --timeout",
        )
    exit_ = container.wait()
    if exit_ is not None and (exit_.code or exit_.signal):
        raise CommandFailed(f"the command {exit_}", exit_.status)


class _Pipes:
    """The two pipes of a container, as text in pieces that are not too small."""

    def __init__(self, container: Container, on_text: OnText) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._on_text = on_text
        self._names = {container.stdout: "stdout", container.stderr: "stderr"}
        self._decoders = {name: make("replace") for name in ("stdout", "stderr")}
        self._held: list[tuple[str, str]] = []
        self._shown = 0.0
        for fd in self._names:
            os.set_blocking(fd, False)

    def wait(self, pidfd: int, cancel_fd: int | None) -> bool:
        """Read what comes; True when the process has ended and all it wrote was passed on."""
        others = [pidfd] if cancel_fd is None else [pidfd, cancel_fd]
        found = syscalls.readable([*self._names, *others], _INTERVAL_S)
        has_ended = pidfd in found
        for fd in list(self._names):
            self._read(fd, to_the_end=has_ended)
        if has_ended or time.monotonic() - self._shown >= _INTERVAL_S:
            self._show()
        return has_ended

    def _read(self, fd: int, *, to_the_end: bool) -> None:
        name = self._names[fd]
        while True:
            try:
                data = os.read(fd, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                del self._names[fd]
                return
            self._held.append((name, self._decoders[name].decode(data)))
            if not to_the_end:
                return

    def _show(self) -> None:
        held, self._held = self._held, []
        self._shown = time.monotonic()
        for name in ("stdout", "stderr"):
            if text := "".join(part for at, part in held if at == name):
                self._on_text(name, text)
