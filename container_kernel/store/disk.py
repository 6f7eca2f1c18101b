"""The disk refused: what the user is told, and whether that says anything about the store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ContainerKernelError, StoreError, out_of_files
from ..folders import has_inodes

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # as some network file systems say


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Make whatever the disk refuses meanwhile words about ``folder``.

    Raises:
        StoreError: it is full, failing, or not ours to write.
        HostError: it was not the disk: this process can open no more files.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: OSError) -> ContainerKernelError:
    """What the user is told when the disk refused."""
    if host_error := out_of_files(error):
        return host_error
    if error.errno in _NO_LOCKS:
        return StoreError(
            f"the file system of {error.filename or folder} cannot lock files",
            hint="set CONTAINER_KERNEL_HOME to a folder on a local disk",
        )
    elsewhere = "or set CONTAINER_KERNEL_HOME to a folder you can write"
    hint = f"free space there, {elsewhere}"
    if error.errno == errno.EDQUOT:
        hint = f"it is what you are granted there: remove files, have it raised, {elsewhere}"
    elif error.errno == errno.ENOSPC and _has_no_inodes(folder):
        hint = f"not space ran out there, but inodes: remove files (`df -i` counts), {elsewhere}"
    elif error.errno == errno.EIO:
        hint = f"look at that disk (dmesg), {elsewhere}"
    return StoreError(f"cannot write {error.filename or folder}: {error.strerror}", hint=hint)


def _has_no_inodes(folder: Path) -> bool:
    with suppress(OSError):
        found = os.statvfs(folder)
        return found.f_bavail > 0 and not has_inodes(found)
    return False
