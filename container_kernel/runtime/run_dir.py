"""Run folder: what one process tree keeps outside the store while it lives.

Mount points, sockets, bundles. A lock in it is held by every process of the tree: when it can be
taken, they are all gone, and whoever takes it sweeps the folder and the cgroups of its name: the
tree's own janitor, and should somebody have killed that, the next one who comes by.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import HostError
from ..folders import remove_tree
from . import cgroup, subordinate

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PATIENCE_S = 5.0
_AGAIN_S = 0.01
_UNFINISHED_S = 60.0


def make(environ: Mapping[str, str]) -> tuple[Path, int]:
    """A fresh folder, locked while any of our processes lives; sweeps what dead ones left.

    Its cgroups bear its name, which no process id alone makes unique: namespaces count their own.
    """
    wanted = mode(os.getuid())
    parent = _parent(environ, wanted)
    sweep_all(parent)
    name = f"{os.getpid()}-{os.urandom(4).hex()}"
    fresh, run_dir = parent / f".new-{name}", parent / name
    try:
        fresh.mkdir(mode=wanted)
        lock = os.open(fresh / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh.rename(run_dir)  # only now can a sweeper see it, and it is locked
    except OSError as error:
        raise HostError(
            f"no folder can be made in {parent}: {error.strerror}",
            hint="free space there, or set XDG_RUNTIME_DIR to a folder of yours",
        ) from error
    return run_dir, lock


def mode(uid: int) -> int:
    """Of the folders of that user: containers with ids that are lent to root must pass."""
    return 0o711 if uid == 0 and subordinate.of_root() else 0o700


def _parent(environ: Mapping[str, str], wanted: int) -> Path:
    """``$XDG_RUNTIME_DIR/container-kernel``, or a folder in /tmp that is provably ours.

    In user namespaces many are uid 0: the first name that nobody else has is taken. Its mode allows
    what ``wanted`` does.
    """
    given = environ.get("XDG_RUNTIME_DIR")
    must_pass = wanted & stat.S_IXOTH
    if given and _is_ours(Path(given)) and (not must_pass or _is_passable(Path(given))):
        places = [Path(given) / "container-kernel"]
    else:
        name = f"/tmp/container-kernel-{os.getuid()}"
        places = [Path(name), *(Path(f"{name}.{number}") for number in range(1, 100))]
    for parent in places:
        with suppress(OSError):
            parent.mkdir(mode=wanted, exist_ok=True)
        if _is_ours(parent):
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | wanted)
            return parent
    raise HostError(
        f"{places[0]} belongs to somebody else", hint="set XDG_RUNTIME_DIR to a folder of yours"
    )


def _is_passable(path: Path) -> bool:
    """Whether anybody can get to what is in there."""
    return all(one.stat().st_mode & stat.S_IXOTH for one in (path, *path.parents))


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    is_folder = path.is_dir() and not path.is_symlink()
    return is_folder and found.st_uid == os.getuid() and not found.st_mode & 0o022


def sweep_all(parent: Path) -> None:
    """Sweep every run folder in there that is nobody's any more."""
    for other in parent.iterdir():
        if not other.name.startswith("."):
            sweep(other)
        elif _is_old(other):  # else it is about to be locked
            remove_tree(other)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _UNFINISHED_S
    except OSError:
        return False


def sweep(run_dir: Path, *, wait: bool = False) -> None:
    """Remove a run folder, and its cgroups, whose processes are all gone.

    With ``wait`` this sleeps until they are, and gives those that were killed a moment ago time
    to leave their cgroups; else it does nothing while one of them lives. Several may do this at
    once: each finishes what another could not.
    """
    try:
        lock = os.open(run_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        _remove(run_dir, _PATIENCE_S if wait else 0.0)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def _remove(run_dir: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        remove_tree(run_dir)
        if _remove_cgroups(run_dir.name) and not run_dir.exists():
            return
        if time.monotonic() >= deadline:
            return
        time.sleep(_AGAIN_S)


def _remove_cgroups(name: str) -> bool:
    """Remove the cgroups of that run: on v1 in every hierarchy, on v2 beside our own.

    False when there is one that still has processes.
    """
    tops = [*_CGROUP_ROOT.glob(f"*/container-kernel/{name}")]
    own = _CGROUP_ROOT / cgroup.own_path().lstrip("/")
    tops += [place / f"container-kernel-{name}" for place in (_CGROUP_ROOT, own)]
    for top in tops:
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
    cgroup.remove_unasked(f"{name}-c*")
    return not any(top.exists() for top in tops)
