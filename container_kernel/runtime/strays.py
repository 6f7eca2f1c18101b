"""Strays: the children that OCI runtimes leave to us, this process being their subreaper."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

starting = threading.Lock()
"""Held from the start of a runtime until its container is known."""
known: set[int] = set()
"""The first processes of containers that nobody waited for yet."""


def bury() -> None:
    """Bury the helpers a runtime forked and left: they became our children."""
    with starting:  # whose first process is not known yet
        _reap_unknown()


def _reap_unknown() -> None:
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return
    for pid in set(children) - {str(first) for first in known}:
        try:
            head, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(")")
            if rest.split()[0] == "Z" and head.partition("(")[2][:4] in ("crun", "runc"):
                os.waitpid(int(pid), os.WNOHANG)
        except (OSError, IndexError):
            continue


def wait_for(pid: int) -> tuple[int, resource.struct_rusage]:
    """The exit status of a process that ended, and what it used. For a moment after crun has
    returned, a helper of its own can still be the parent; the process becomes our child when that
    has ended.
    """
    deadline = time.monotonic() + 10
    while True:
        try:
            return os.wait4(pid, 0)[1:]
        except ChildProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.0005)
