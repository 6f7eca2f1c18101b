"""Folders: removed with everything in them, walked through, however deep, and their room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a folder and all below, as far as it can be removed."""
    import shutil  # loads three compressors, which no kernel's start should wait for

    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path) and not os.path.islink(path):
        _remove_deep(path)


def has_inodes(found: os.statvfs_result) -> bool:
    """Whether a file system has room for another file's name; btrfs does not count them."""
    return found.f_favail > 0 or found.f_files == 0


def _remove_deep(path: str | os.PathLike[str]) -> None:
    """Cells make folders deeper than Python, or open files, can follow."""
    import subprocess

    with suppress(OSError):
        subprocess.run(
            ["rm", "-rf", "--one-file-system", "--", path],
            check=False,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath},  # not the user's, which may begin anywhere
        )


def walk(top: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, which before Python 3.12 gives up some thousand levels down.

    Each folder at or below ``top`` with the names of those in it and of everything else. No link is
    followed; what is deeper than a path may be long is passed over.
    """
    left = [os.fspath(top)]
    while left:
        here = left.pop()
        folders: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
        except OSError:
            continue
        yield here, folders, others
        left += [os.path.join(here, name) for name in folders]
