"""Spawn: one call of an OCI runtime, to its end.

What it has started goes on, and writes to the pipes that are returned.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..record import record
from . import refusal
from .bundle import DEFAULT_PATH

_SANE_ENV = {"PATH": DEFAULT_PATH, "LC_ALL": "C.UTF-8"}


@record
class Call:
    """``executable`` is run as ``argv[0]`` and says in ``log`` what is wrong.

    ``stdin`` is for what it starts, which has none without.
    """

    argv: Sequence[str]
    executable: Path
    log: Path
    stdin: int | None = None


def run(call: Call, on_spawn: Callable[[], None], *, merge_output: bool = False) -> tuple[int, int]:
    """The reading ends of what it started: its output and its errors, or -1 where they are merged.

    Raises:
        RuntimeFailed: it ended with an error.
    """
    with ExitStack() as ours, ExitStack() as theirs:
        stdin = theirs.enter_context(_no_input()) if call.stdin is None else call.stdin
        out_r, out_w = _pipe(ours, theirs)
        err_r, err_w = (-1, out_w) if merge_output else _pipe(ours, theirs)
        # close_fds: a folder that leaks into the runtime is a way out (CVE-2024-21626).
        runtime = subprocess.Popen(
            call.argv,
            executable=call.executable,
            stdin=stdin,
            stdout=out_w,
            stderr=err_w,
            close_fds=True,
            env=_SANE_ENV,
            cwd="/",
        )
        on_spawn()
        returncode = runtime.wait()
        theirs.close()
        if returncode:
            raise refusal.of(call.argv, returncode, call.log, (out_r, err_r))
        ours.pop_all()
    return out_r, err_r


@contextmanager
def _no_input() -> Iterator[int]:
    """A standard input at its end. Not /dev/null: crun gives that to the user inside, where it is
    the host's own there too: ids are lent, or somebody joins the container.
    """
    reading, writing = os.pipe()
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    ours.callback(os.close, reading)
    theirs.callback(os.close, writing)
    return reading, writing
