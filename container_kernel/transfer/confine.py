"""Confine: what a process gives up before it reads bytes nobody vouches for.

In order: privileges it could gain, the network and other processes' shared memory, every file but
one folder, resources, capabilities, and the system calls that could undo any of this. Works as
root of the initial user namespace and as root of one of our own.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Sequence
from contextlib import suppress

from .. import syscalls
from ..syscalls import prctl, unshare
from . import landlock

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SYS_ADMIN, SETFCAP = 0, 1, 3, 4, 27, 21, 31

# Load, compare, return: the three instructions a filter needs (linux/filter.h).
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_MORE, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050001  # refuse with EPERM
_NUMBER_AT, _ARCH_AT = 0, 4
_X32 = 0x40000000

# New processes and programs, sockets, namespaces and mounts, other processes, keys, kernel code.
# Their numbers are per machine (unistd.h); each filter is for one AUDIT_ARCH.
_X86_64 = """41 53 56 57 58 59 62 101 155 161 165 166 167 169 175 234 246 248 249 250 272 298 304
    308 310 311 313 321 322 323 425 428 429 430 432 434 435 438 442"""
_AARCH64 = """39 40 41 51 97 104 105 117 129 131 142 198 199 217 218 219 220 221 224 241 265 268 270
    271 273 280 281 282 425 428 429 430 432 434 435 438 442"""
_REFUSED = {
    "x86_64": (0xC000003E, [int(number) for number in _X86_64.split()]),
    "aarch64": (0xC00000B7, [int(number) for number in _AARCH64.split()]),
}


def die_with_parent(parent: int) -> None:
    """Be killed when ``parent`` ends; at once if it already has."""
    prctl(syscalls.PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def confine(
    folder: str | None,
    *,
    memory_bytes: int,
    cpu_s: int,
    keep_admin: bool,
    readable: Sequence[int] = (),
) -> None:
    """Give up everything but ``folder``, which becomes the root, and the open descriptors.

    Of those, folders can be walked downwards only, and ``readable`` ones only be read, where the
    host kernel has Landlock. ``keep_admin`` keeps CAP_SYS_ADMIN, which setting ``trusted.*``
    attributes needs.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
    if folder is not None:
        _make_root(folder)
    os.umask(0)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(limit, value)
    _stay_below(folder, readable)
    kept = {CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP}
    _keep_capabilities(kept | {SYS_ADMIN} if keep_admin else kept)
    _refuse_system_calls()


def _stay_below(folder: str | None, readable: Sequence[int]) -> None:
    root = [] if folder is None else [os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    landlock.restrict(root, readable)
    for fd in root:
        os.close(fd)


def _make_root(folder: str) -> None:
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(folder, folder, "", syscalls.MS_BIND)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    # Where the mount below has flags that are locked for us, they hold already.
    with suppress(OSError):
        syscalls.mount("", folder, "", syscalls.MS_REMOUNT | syscalls.MS_BIND | flags)
    os.chdir(folder)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b".") != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def _lower(limit: int, value: int) -> None:
    """Set a limit, never above what it was."""
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _keep_capabilities(kept: set[int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    head = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    words = [0, 0]
    for capability in kept:
        words[capability // 32] |= 1 << capability % 32
    current = ctypes.create_string_buffer(24)
    if libc.capget(head, current) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    _, low, _, _, high, _ = struct.unpack("<6I", current.raw)
    words = [words[0] & low, words[1] & high]
    if libc.capset(head, struct.pack("<6I", words[0], words[0], 0, words[1], words[1], 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _refuse_system_calls() -> None:
    """Install a filter; on a machine whose numbers we do not know, do without."""
    known = _REFUSED.get(os.uname().machine)
    if known is None:
        return
    architecture, numbers = known
    code = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_MORE, len(numbers) + 1, 0, _X32),
        *(
            (_JUMP_IF_EQUAL, len(numbers) - place, 0, number)
            for place, number in enumerate(numbers)
        ),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    packed = b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
    program = _Program(len(code), packed)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _prctl(option: int, value: int, address: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    rest = ctypes.c_ulong(address), ctypes.c_ulong(0), ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), *rest) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")
