"""Volumes: folders of data with a name, kept in the store, that outlive containers and images."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CellError
from ..folders import remove_tree


def make(store: Path, name: str) -> Path:
    """The folder of a named volume, made when it is not there."""
    folder = store / "volumes" / name
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder


def remove(store: Path, name: str) -> None:
    """Remove a volume with all in it.

    Raises:
        CellError: there is none of that name, or somebody has it.
    """
    import fcntl

    top = store / "volumes"
    known = names(store)
    if name not in known:
        raise CellError(f"no volume {name!r}", hint=f"volumes are: {', '.join(known) or 'none'}")
    fd = os.open(top / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(top / name)
    except BlockingIOError:
        raise CellError(
            f"the volume {name!r} is in use", hint="end the session that has it mounted"
        ) from None
    finally:
        os.close(fd)


def hold(folder: Path) -> int:
    """Keep a volume from being removed while somebody has it."""
    import fcntl

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def names(store: Path) -> list[str]:
    """The volumes there are."""
    top = store / "volumes"
    return sorted(path.name for path in top.iterdir()) if top.is_dir() else []
