"""Sealed: a program's copy in memory that nobody can write to, run in place of the program.

crun makes one of itself at each start and executes itself anew from there, so that no container
can overwrite the program through /proc/self/exe (CVE-2019-5736). Where it is run from a sealed
copy already it need not: a third of its start. The copy is made once in a process.
"""

from __future__ import annotations

import fcntl
import functools
import os
from pathlib import Path

_ADD_SEALS = 1033  # F_ADD_SEALS and what can be sealed: fcntl(2); Python names them since 3.12 only
_ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write


@functools.cache
def executable(path: Path, folder: Path) -> Path:
    """What to execute instead of ``path``; the file itself where no copy can be made.

    It is a link in ``folder``, so that the process has the program's name.
    """
    link = folder / f"{path.name}-{os.getpid()}"
    try:
        link.symlink_to(f"/proc/{os.getpid()}/fd/{_copy(path)}")
    except OSError:
        return path
    return link


def _copy(path: Path) -> int:
    fd = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as copy:
            copy.write(path.read_bytes())
        fcntl.fcntl(fd, _ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
