"""Trees of files, compared: what images made by two tools hold."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from container_kernel.build import volatile

# Mount points that other tools leave behind, and what containers get at every start.
_STUBS = ("/run", "/dev", "/proc", "/sys", "/etc/mtab")


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below ``root`` with its mode, owner, links and content; no times.

    Left out: what `volatile` takes out of our layers, and mount points.
    """
    found: dict[str, tuple[object, ...]] = {}
    links: dict[int, str] = {}
    for here, folders, files in os.walk(root):
        for name in sorted((*folders, *files)):
            path = os.path.join(here, name)
            inside = path.removeprefix(str(root))
            if volatile.rule_of(inside) is None and not inside.startswith(_STUBS):
                found[inside] = _entry(path, inside, links)
    return found


def _entry(path: str, inside: str, links: dict[int, str]) -> tuple[object, ...]:
    info = os.lstat(path)
    what: object = None
    if stat.S_ISLNK(info.st_mode):
        what = os.readlink(path)
    elif stat.S_ISREG(info.st_mode):
        what = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if info.st_nlink > 1:
            what = (what, links.setdefault(info.st_ino, inside))
    return (stat.filemode(info.st_mode), info.st_uid, info.st_gid, what)


def differences(ours: Path, theirs: Path) -> dict[str, tuple[object, object]]:
    """What is not the same in both, as path: (ours, theirs)."""
    one, other = tree(ours), tree(theirs)
    return {
        path: (one.get(path), other.get(path))
        for path in sorted({*one, *other})
        if one.get(path) != other.get(path)
    }
