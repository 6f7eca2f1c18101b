"""Tool output: what a tool of the host writes, unpacked while it works.

Its standard output is a tar, its error output the log of the step.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

from .. import syscalls
from ..errors import ImageError, StepFailed
from ..oci.decoder import apply
from ..store.snapshots import Active
from ..store.store import Store
from .cancel import Cancel
from .execute import Tail


def unpack(
    store: Store,
    name: str,
    process: subprocess.Popen[bytes],
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
) -> None:
    """Unpack the tar that a tool of the host writes to its output."""
    tail = Tail()
    root = os.open(active.upper, os.O_RDONLY | os.O_DIRECTORY)

    def log(text: str) -> None:
        tail.add(text)
        on_log(text)

    try:
        stream = _Output(process, log, cancel)
        damage = None
        try:
            apply(stream, root, idmap=store.idmap, userxattr=store.userxattr)
        except ImageError as error:  # most often: the tool died and its tar is cut off
            damage = error
        stream.drain()
        code = process.wait()
        if code:
            raise StepFailed(
                f"{name}: the bootstrap ended with exit code {code}",
                exit_code=code,
                tail=tail.lines,
                hint="check this host's own package sources, then run the cell again",
            )
        if damage:
            raise damage
    finally:
        os.close(root)
        _end(process)


class _Output:
    """A child's standard output as a file; its error output goes to a log meanwhile."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Callable[[str], None], cancel: Cancel
    ) -> None:
        assert process.stdout
        assert process.stderr
        self._out, self._err = process.stdout.fileno(), process.stderr.fileno()
        self._watched = [self._out, self._err, cancel.fd]
        self._log = log
        self._cancel = cancel

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if size == 0:
            return b""
        while self._out in self._watched:
            ready = syscalls.readable(self._watched)
            self._cancel.check()
            if self._err in ready:
                self._read_log()
            if self._out in ready:
                data = os.read(self._out, size)
                if data:
                    return data
                self._watched.remove(self._out)
        return b""

    def drain(self) -> None:
        """Read both to their ends."""
        while self.read(1 << 20):
            pass
        while self._err in self._watched:
            self._cancel.check()
            self._read_log()

    def _read_log(self) -> None:
        data = os.read(self._err, 1 << 16)
        if data:
            self._log(data.decode(errors="replace"))
        else:
            self._watched.remove(self._err)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of a child and its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
