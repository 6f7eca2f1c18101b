"""Overlay: frozen layers below, one writable folder above, by the host kernel's overlayfs."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .. import syscalls
from ..errors import HostError
from ..folders import remove_tree

if TYPE_CHECKING:
    from .lent import Lent

# fsync(2) in a step and the sync at its unmount do nothing: what is frozen is synced once, by the
# store, and what is not may be lost. Since Linux 5.10.
_VOLATILE = ",volatile"


def mount(
    folder: Path,
    lowers: Sequence[Path],
    upper: Path,
    work: Path,
    target: Path,
    *,
    userxattr: bool,
    context: str | None = None,
    lent: Lent | None = None,
) -> None:
    """Attach at ``target`` the folders ``lowers`` (base first) with the writable ``upper``.

    ``folder`` is the one all snapshots lie in: names relative to it keep the option string under
    the page that mount(2) takes. ``work`` is the overlay's own scratch. ``context`` is what SELinux
    takes all files in it for. With ``lent`` its view of the store is taken.

    Raises:
        HostError: the file system of the store cannot carry an overlay.
    """
    options = [
        "lowerdir=" + ":".join(_name(lower, folder) for lower in reversed(lowers)),
        "upperdir=" + _name(upper, folder),
        "workdir=" + _name(work, folder),
        # The frozen upper must mean the same elsewhere: no redirects, no metadata-only copies.
        # Without an index, a second overlay may have the upper of a first (see `rebase`).
        "userxattr,index=off" if userxattr else "redirect_dir=off,metacopy=off,index=off",
        *([f'context="{context}"'] if context else []),
    ]
    data = ",".join(options)
    if len(data) + len(_VOLATILE) >= os.sysconf("SC_PAGE_SIZE"):
        raise HostError(
            f"{len(lowers)} layers are more than an overlay mount can name",
            hint="join some build cells into one",
        )

    # What a volatile overlay leaves there, to be refused after a crash; ours is not used after one.
    left = work / "work" / "incompat"
    if left.exists():
        remove_tree(left)

    words = "overlay", str(target), "overlay", syscalls.MS_NODEV

    def attach() -> None:
        os.chdir(lent.view / folder.name if lent else folder)
        with lent.acting() if lent else nullcontext():  # overlayfs does as whoever mounts it
            try:
                syscalls.mount(*words, data + _VOLATILE)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                syscalls.mount(*words, data)

    try:
        with_own_directory(attach)
    except OSError as error:
        raise HostError(
            f"no overlay can be mounted on the file system of {folder}: {error.strerror}",
            hint="set CONTAINER_KERNEL_HOME to a folder on a local ext4, xfs, btrfs or tmpfs",
        ) from error


def mount_readonly(folder: Path, lowers: Sequence[Path], target: Path, *, userxattr: bool) -> None:
    """Attach at ``target`` the folders ``lowers`` (two at least, base first), to be looked at.

    Raises:
        HostError: the file system of the store cannot carry an overlay.
    """
    names = "lowerdir=" + ":".join(_name(lower, folder) for lower in reversed(lowers))
    data = names + (",userxattr" if userxattr else "")

    def attach() -> None:
        os.chdir(folder)
        flags = syscalls.MS_RDONLY | syscalls.MS_NODEV
        syscalls.mount("overlay", str(target), "overlay", flags, data)

    try:
        with_own_directory(attach)
    except OSError as error:
        raise HostError(f"the layers cannot be mounted: {error.strerror}") from error


def _name(path: Path, folder: Path) -> str:
    """``path``, relative if it is in the store; what overlayfs takes for separators escaped."""
    name = os.path.relpath(path, folder) if path.is_relative_to(folder.parent) else str(path)
    return re.sub(r"([\\:,])", r"\\\1", name)


def unmount(target: Path) -> None:
    """Detach the overlay, also while something still looks at it."""
    syscalls.umount(str(target), syscalls.MNT_DETACH)


def with_own_directory(action: Callable[[], None]) -> None:
    """Run ``action`` in a thread whose chdir(2) and setns(2) move no other thread (CLONE_FS)."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_FS)
            action()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="overlay")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
