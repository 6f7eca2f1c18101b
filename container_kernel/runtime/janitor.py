"""Janitor: removes what a process tree leaves behind when all of it is killed at once.

The supervisor (see `namespace`) can be killed with the rest, so somebody must wait outside. That is
a fork of it which is nobody's descendant, has a session of its own, none of its descriptors and
another name: a signal meant for the tree, for its process group or for every command line that
names a kernel passes it by. It sleeps in flock(2) until the host kernel hands it the lock of the
run folder, which happens when the last process of the tree has ended, however that was.

It also sweeps after an ordinary end, so that there is one way to do it: only the janitor of an
ordinary user may remove what the users of a container own.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from .. import syscalls
from . import run_dir

_TITLE = b"container-kernel-janitor"
COMMAND = "ck-janitor"
"""What /proc/PID/comm says it is: no more than 15 bytes."""
_ALIVE = 3


def start(folder: Path, reaper: int) -> int:
    """Start one for a run folder; returns a descriptor whose end of file says that it has ended.

    ``reaper`` is a process in the user namespace that owns what is in the folder. A signal that the
    caller blocks or ignores does not end the janitor either.
    """
    alive_r, alive_w = os.pipe()
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() == 0:
            _wait_and_sweep(folder, reaper, alive_w)
        os._exit(0)
    os.close(alive_w)
    os.waitpid(first, 0)
    return alive_r


def _wait_and_sweep(folder: Path, reaper: int, alive: int) -> NoReturn:
    try:
        _detach(alive)
        _rename()
        if os.getuid():
            _join_user_namespace(reaper)
        run_dir.sweep(folder, wait=True)
        run_dir.sweep_all(folder.parent)  # whoever started the tree may have been killed with it
    finally:
        os._exit(0)


def _detach(alive: int) -> None:
    """Let go of all that somebody may wait for: pipes, terminals, folders."""
    os.chdir("/")
    os.dup2(alive, _ALIVE, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(_ALIVE + 1, os.sysconf("SC_OPEN_MAX"))


def _rename() -> None:
    """Show another command line: the kernel's would have it taken for one, and killed with it."""
    with open("/proc/self/stat") as file:
        stat = file.read().rpartition(")")[2].split()
    first, end = int(stat[45]), int(stat[46])  # arg_start and arg_end of proc_pid_stat(5)
    size = end - first
    ctypes.memmove(first, _TITLE[: size - 1].ljust(size, b"\0"), size)
    with open("/proc/self/comm", "w") as file:
        file.write(COMMAND)


def _join_user_namespace(pid: int) -> None:
    """Be somebody who may remove files of every id that is mapped there."""
    with suppress(OSError):  # it has ended already: then nothing was made yet
        syscalls.setns(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), syscalls.CLONE_NEWUSER)
