"""Mount point: where something is mounted in a root file system that others have written to.

No link of theirs is followed, on the way there or at its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from .. import syscalls
from .overlay import with_own_directory


def make(root: int, target: str, owner: int, *, is_file: bool) -> None:
    """Make what is missing of a place to mount on; no link is followed.

    Raises:
        OSError: there is something else in its place.
    """
    here = os.dup(root)
    *parents, last = target.strip("/").split("/")
    try:
        for name in [*parents, *([] if is_file else [last])]:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=here)
                os.chown(name, owner, owner, dir_fd=here, follow_symlinks=False)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, flags, dir_fd=here)
            os.close(here)
            here = below
        if is_file:
            flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            os.close(os.open(last, flags, 0o644, dir_fd=here))
    finally:
        os.close(here)


# ---------------------------------------------------------------- in a running container


def into(pid: int, tree: int, target: str) -> None:
    """Attach a mount in the mount namespace of ``pid``; no link at or above ``target`` is followed.

    Raises:
        OSError: the host kernel refused, or there is nothing to mount on.
    """

    def act() -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place = syscalls.open_in_root(root, target, os.O_PATH, links=False)
            try:
                syscalls.move_mount(tree, place)
            finally:
                os.close(place)
        finally:
            os.close(root)

    _inside(pid, act)


def forbid_devices(pid: int) -> None:
    """Let no device in the root file system of ``pid`` be opened."""

    def act() -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.make_nodev(root)
        finally:
            os.close(root)

    with suppress(FileNotFoundError):  # it has ended
        _inside(pid, act)


def out_of(pid: int, target: str) -> None:
    """Detach what `into` attached."""
    _inside(pid, lambda: syscalls.umount(target, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW))


def _inside(pid: int, act: Callable[[], None]) -> None:
    """Do it in the mount namespace of ``pid``."""
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter() -> None:
        syscalls.setns(namespace, syscalls.CLONE_NEWNS)
        act()

    try:
        with_own_directory(enter)
    finally:
        os.close(namespace)
