"""Spare: a kernel process that has loaded everything and waits to be told which kernel it is.

Most of what a kernel's start takes is Python's own start and its imports. A server that keeps one
such process has that behind it when the next notebook is opened. No notebook has had it before:
it has run nothing, and only one is ever given it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

FLAG = "--spare"
_MODULE = "container_kernel.kernel"
_LOADED = (
    ".start",
    ".app",
    ".cells",
    ".marking",
    ".python_inner",
    ".shell_inner",
    ".zmq_inner",
    "..build.opening",
    "..workbench",
    "encodings.ascii",
    "shutil",
    "tomllib",
)


def load() -> None:
    """What a kernel's start imports, up to its first result."""
    for name in _LOADED:
        importlib.import_module(name, __package__)


def wait() -> list[str]:
    """Load everything, then be the kernel that a line on standard input tells; its arguments.

    The process ends where nobody is left who could write that line.
    """
    load()
    line = bytearray()
    while not line.endswith(b"\n"):
        data = os.read(0, 1 << 16)
        if not data:
            os._exit(0)
        line += data
    told = json.loads(line)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(told["environ"])
    time.tzset()
    os.chdir(told["cwd"])
    return list(told["arguments"])


class Spare:
    """A process that waits, for who keeps it. It ends with them."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start one for a later kernel like that of ``argv`` (see `is_ours`)."""
        self._like = _likeness(argv, environ)
        command = [*_command(argv), FLAG]
        self._process = subprocess.Popen(  # as jupyter_client starts kernels
            command, stdin=subprocess.PIPE, env=dict(environ), start_new_session=True
        )

    def be(
        self, argv: Sequence[str], environ: Mapping[str, str], cwd: str | None
    ) -> subprocess.Popen[bytes] | None:
        """The process, as the kernel of ``argv``; None, and it is gone, if it is not like that."""
        told = {
            "arguments": list(argv)[len(_command(argv)) :],
            "environ": {**environ, "JPY_PARENT_PID": str(os.getpid())},
            "cwd": cwd or os.getcwd(),
        }
        stdin = self._process.stdin
        assert stdin is not None
        if self._like == _likeness(argv, environ) and self._process.poll() is None:
            with suppress(BrokenPipeError), stdin:  # it has ended after all
                stdin.write(json.dumps(told).encode() + b"\n")
                stdin.flush()
                return self._process
        self.end()
        return None

    def end(self) -> None:
        """It is not needed."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def is_ours(argv: Sequence[str]) -> bool:
    """Whether a command line starts a kernel of ours, which a spare could be."""
    return _MODULE in argv


def _command(argv: Sequence[str]) -> list[str]:
    return list(argv[: argv.index(_MODULE) + 1])


def _likeness(argv: Sequence[str], environ: Mapping[str, str]) -> object:
    """What a spare and the kernel it is to be must have in common; what is loaded, above all."""
    of_one = ("JPY_SESSION_NAME", "JPY_PARENT_PID")
    lasting = {key: value for key, value in environ.items() if key not in of_one}
    return _command(argv), lasting, Path(__file__).stat().st_mtime_ns
