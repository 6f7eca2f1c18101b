"""Opened: bundles that were opened, each with a store of its own, beside the store of this user.

    <store>-bundles/<digest of the bundle>/{notebook,store,name}

``name`` is written last. What was not changed since can be had again by opening the bundle again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..folders import remove_tree
from .leases import folder_lock, is_locked

NAME = "name"
_DRAFT_S = 86400.0


def folder(home: Path) -> Path:
    """Where the bundles lie that were opened beside the store at ``home``."""
    return home.with_name(f"{home.name}-bundles")


def use(place: Path) -> bool:
    """Say that an opened bundle is in use now; False when it is not there."""
    with suppress(FileNotFoundError), folder_lock(place.parent, fcntl.LOCK_SH):
        os.utime(place)
        return True
    return False


def places(home: Path) -> list[Path]:
    """All that are there."""
    return sorted(folder(home).glob("[!.]*"))


def why_kept(place: Path) -> str:
    """Why it has to stay whatever its age; nothing where it may go."""
    if any(is_locked(lease) for lease in place.glob("store/leases/*")):
        return "a running process needs it"
    if next(place.glob("store/volumes/*"), None) is not None:
        return "it holds volumes"
    if any(path.lstat().st_ctime_ns > _opened_ns(place) for path in _of_the_user(place)):
        return "something in it was changed since it was opened"
    return ""


def _opened_ns(place: Path) -> int:
    try:
        return (place / NAME).lstat().st_ctime_ns
    except FileNotFoundError:
        return 0


def _of_the_user(place: Path) -> Iterator[Path]:
    yield from place.glob("store/tags.json")
    yield from (place / "notebook").rglob("*")


def remove(place: Path, used: float) -> bool:
    """Remove one that was not used since ``used``; False when it was, or has to stay."""
    gone = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
    with folder_lock(place.parent, fcntl.LOCK_EX):
        if place.stat().st_mtime > used or why_kept(place):
            return False
        place.rename(gone)
    remove_tree(gone)
    return True


def sweep(home: Path, now: float) -> None:
    """Remove what killed processes left half opened, or half removed."""
    for path in folder(home).glob(".*"):
        with suppress(OSError):
            if now - path.stat().st_mtime > _DRAFT_S:
                remove_tree(path)
