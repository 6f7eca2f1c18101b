"""Landlock: files are reached below a few open folders, or not at all (landlock(7)).

What a change of root does not do: a folder that was open before can be walked upwards, out of the
new root. With this it cannot. Kernels that lack Landlock, or are older than 5.19, where it forbids
hard links between folders, go without; so the other walls must hold alone.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # on every architecture
_VERSION = 1
_PATH_BENEATH = 1
_LEAST_ABI = 2

READ_FILE, READ_DIR = 1 << 2, 1 << 3
_EVERYTHING = {2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # rights by ABI


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The host kernel's version of the interface; 0 where there is none."""
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)))


def restrict(writable: Iterable[int], readable: Iterable[int]) -> bool:
    """From now on open nothing but what lies below these open folders; False if it cannot be.

    It needs no_new_privs, holds for children too and can never be undone. What is open stays open.

    Raises:
        OSError: the host kernel has Landlock and refuses.
    """
    found = abi()
    if found < _LEAST_ABI:
        return False
    everything = max(rights for least, rights in _EVERYTHING.items() if least <= found)
    ruleset = _Ruleset(everything)
    fd = _check(_libc.syscall(_CREATE, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0))
    try:
        for folders, rights in ((writable, everything), (readable, READ_FILE | READ_DIR)):
            for folder in folders:
                rule = _PathBeneath(rights, folder)
                _check(_libc.syscall(_ADD_RULE, fd, _PATH_BENEATH, ctypes.byref(rule), 0))
        _check(_libc.syscall(_RESTRICT, fd, 0))
    finally:
        os.close(fd)
    return True


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "landlock")
    return int(result)
