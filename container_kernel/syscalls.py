"""The Linux system calls that Python's ``os`` does not offer, as thin functions.

Each raises ``OSError`` with the path it was about. Numbers and flags are from ``linux/mount.h``,
``linux/sched.h`` and the syscall table shared by all architectures since Linux 5.1.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import stat
from collections.abc import Iterable

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWIPC = 0x08000000
CLONE_FS = 0x00000200

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x00100000

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones (unshare(2))."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Attach a file system at ``target`` (mount(2))."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind) or None,
        ctypes.c_ulong(flags),
        os.fsencode(data) or None,
    )
    _check(result, target)


def umount(target: str, flags: int = 0) -> None:
    """Detach the topmost file system at ``target`` (umount2(2))."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def prctl(option: int, value: int) -> int:
    """Set or read a property of this process (prctl(2))."""
    return _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def linux_version() -> tuple[int, ...]:
    """The host kernel's, ``(6, 1, 0)`` (uname(2)); empty when it says none."""
    found = re.match(r"\d+(?:\.\d+)*", os.uname().release)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def make_files_as(number: int) -> None:
    """Have this thread make and open files as that user and group (setfsuid(2)).

    It keeps its capabilities, which the host kernel takes from whoever stops being uid 0.
    """
    _libc.setfsgid(number)
    _libc.setfsuid(number)
    if _libc.setfsuid(_NOBODY) != number:  # which changes nothing and tells who it is
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), "setfsuid")
    header, sets = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapSets * 2)()
    _check(_libc.capget(ctypes.byref(header), sets), "capget")
    for one in sets:
        one.effective = one.permitted
    _check(_libc.capset(ctypes.byref(header), sets), "capset")


_NOBODY = -1
_CAPABILITY_VERSION_3 = 0x20080522


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapSets(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def syncfs(fd: int) -> None:
    """Write everything of the file system that holds ``fd`` to its disk (syncfs(2))."""
    _check(_libc.syncfs(fd), "syncfs")


# Whenever anybody on the host renames or mounts something while a ".." is followed, the host kernel
# cannot tell that it led nowhere else, and asks to be asked again (openat2(2), EAGAIN).
_MOST_RACES = 1000


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_in_root(root_fd: int, path: str, flags: int, *, links: bool = True) -> int:
    """Open ``path`` as a process chrooted at ``root_fd`` would: no symlink or ``..`` leads out.

    ``RESOLVE_NO_MAGICLINKS`` also refuses ``/proc/self/fd/N`` (openat2(2), CVE-2024-21626).
    Without ``links`` a symlink anywhere in ``path`` is an error.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if links else RESOLVE_NO_SYMLINKS)
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    words = _SYS_OPENAT2, root_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
    for _ in range(_MOST_RACES):
        result = _libc.syscall(*words)
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _check(result, path)


def regular(fd: int) -> int:
    """``fd``, of a regular file: where strangers write there may be a FIFO or a device.

    Raises:
        OSError: it is of something else, and closed.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def readable(fds: Iterable[int], timeout_s: float | None = None) -> list[int]:
    """Those of ``fds`` that can be read, as soon as one can; none after ``timeout_s`` seconds.

    As select(2), which takes no descriptor above 1023.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)]


def setns(fd: int, kind: int) -> None:
    """Move this thread into the namespace open as ``fd`` (setns(2)); ``kind`` is its CLONE_ flag.

    For a mount namespace the thread must have a root and working directory of its own (CLONE_FS).
    """
    _check(_libc.setns(fd, kind), "setns")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root of this mount namespace and of all that had the old one."""
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root)


def clone_mount(source: str) -> int:
    """A descriptor of a copy of the mount at ``source``, attached nowhere (open_tree(2))."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    return _check(_libc.syscall(_SYS_OPEN_TREE, AT_FDCWD, os.fsencode(source), flags), source)


def clone_tree(fd: int) -> int:
    """A descriptor of a copy of the mounts at and below what is open as ``fd``."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE
    return _check(_libc.syscall(_SYS_OPEN_TREE, fd, b"", flags), "open_tree")


def set_tree(mount_fd: int, attributes: int, *, userns_fd: int = 0) -> None:
    """Add attributes to a mount and all below it, and make them private (mount_setattr(2))."""
    wanted = _MountAttr(attributes, 0, MS_PRIVATE, userns_fd)
    _set_attributes(mount_fd, wanted, "", AT_RECURSIVE)


def move_mount(mount_fd: int, target: int | str) -> None:
    """Attach the mount open as ``mount_fd``, with those on it, at ``target`` (move_mount(2))."""
    flags = MOVE_MOUNT_F_EMPTY_PATH
    fd, path = AT_FDCWD, target
    if isinstance(target, int):
        fd, path, flags = target, "", flags | MOVE_MOUNT_T_EMPTY_PATH
    result = _libc.syscall(_SYS_MOVE_MOUNT, mount_fd, b"", fd, os.fsencode(str(path)), flags)
    _check(result, str(target))


def make_readonly(mount_fd: int) -> None:
    """Let nobody write through this mount any more; OSError (EBUSY) while somebody does."""
    _set_attributes(mount_fd, _MountAttr(MOUNT_ATTR_RDONLY, 0, 0, 0), "")


def make_nodev(mount_fd: int) -> None:
    """Let no device be opened through this mount."""
    _set_attributes(mount_fd, _MountAttr(MOUNT_ATTR_NODEV, 0, 0, 0), "")


def bind_idmapped(source: str, target: str, userns_fd: int) -> None:
    """Bind ``source`` at ``target`` with its owners shifted as ``userns_fd`` maps them.

    Needs Linux 5.12 and a file system that allows it (mount_setattr(2), MOUNT_ATTR_IDMAP).
    """
    tree = clone_mount(source)
    try:
        _set_attributes(tree, _MountAttr(MOUNT_ATTR_IDMAP, 0, MS_PRIVATE, userns_fd), source)
        move_mount(tree, target)
    finally:
        os.close(tree)


def _set_attributes(mount_fd: int, attributes: _MountAttr, path: str, flags: int = 0) -> None:
    size = ctypes.sizeof(attributes)
    where = (mount_fd, b"", AT_EMPTY_PATH | flags)
    _check(_libc.syscall(_SYS_MOUNT_SETATTR, *where, ctypes.byref(attributes), size), path)
