"""Subordinate ids: which ids this host lends an ordinary user, and how they are mapped."""

from __future__ import annotations

import functools
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

from .. import syscalls
from ..oci.idmap import IdMap
from ..record import record

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FEWEST = 2000
"""Fewer ids than this cannot hold the users and groups of ordinary images."""
_ALL_IDS = 2**32 - 1
_FILES = ("/etc/subuid", "/etc/subgid")
_FILE_CAPABILITY = "security.capability"
_ID_MAPPED_LAYERS = (5, 19)
"""The first Linux whose overlayfs takes some."""
REMEDY = (
    "install `uidmap` and give the user a range: "
    "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
)


@record
class Range:
    """``count`` ids from ``start`` on."""

    start: int
    count: int


def find(environ: Mapping[str, str], lacks: list[str]) -> tuple[Range, Range] | None:
    """The user's ranges in /etc/subuid and /etc/subgid, or None with the reason in ``lacks``."""
    if environ.get("CONTAINER_KERNEL_SINGLE_UID"):
        lacks.append("subordinate ids: switched off by CONTAINER_KERNEL_SINGLE_UID")
        return None
    found = []
    for file in _FILES:
        ids = _range_of_user(Path(file))
        if ids is None or ids.count < _FEWEST:
            what = f"only {ids.count} ids, fewer than {_FEWEST}," if ids else "no range"
            lacks.append(f"subordinate ids: {what} for this user in {file}")
            return None
        found.append(ids)
    for tool in ("newuidmap", "newgidmap"):
        path = _find(tool)
        if path is None or not _has_privilege(path):
            what = f"{path} is not setuid root" if path else f"{tool} is not installed"
            lacks.append(f"subordinate ids: {what}")
            return None
    return found[0], found[1]


@functools.cache
def of_root() -> Range | None:
    """The ids that this host lends root for its containers, as users and as groups.

    None where it lends none, or where its overlayfs takes no id-mapped layers.
    """
    if syscalls.linux_version() < _ID_MAPPED_LAYERS:
        return None
    uids, gids = (_range_of_user(Path(file)) for file in _FILES)
    if uids is None or gids is None:
        return None
    start = max(uids.start, gids.start)
    count = min(uids.start + uids.count, gids.start + gids.count) - start
    return Range(start, count) if count >= _FEWEST else None


def _has_privilege(path: str) -> bool:
    """Whether a program may write id maps: it is setuid, or has the capability in its file."""
    try:
        return bool(os.stat(path).st_mode & stat.S_ISUID or os.getxattr(path, _FILE_CAPABILITY))
    except OSError:
        return False


def mapped() -> IdMap:
    """How ids of images are written by this process, which is uid 0 of some user namespace.

    Of the host's own, then they are the same; of one with a range of ids, whoever made it (this
    package, podman, a container engine); or of one that holds the user alone.
    """
    count = min(_mapped_from_zero(f"/proc/self/{kind}_map") for kind in ("uid", "gid"))
    if count >= _ALL_IDS:
        return IdMap.identity()
    return IdMap.keep_user(count - 1) if count > _FEWEST else IdMap.single()


def _mapped_from_zero(file: str) -> int:
    """How many ids are there from 0 on without a gap."""
    rows = sorted(tuple(map(int, line.split())) for line in Path(file).read_text().splitlines())
    end = 0
    for inside, _, count in rows:
        if inside == end:
            end += count
    return end


def _range_of_user(file: Path) -> Range | None:
    """The largest range of this user."""
    names = {str(os.getuid())}
    try:
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        pass
    best: Range | None = None
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, numbers = line.partition(":")
        start, _, count = numbers.partition(":")
        if name in names and start.isdigit() and count.isdigit() and int(count):
            if best is None or int(count) > best.count:
                best = Range(int(start), int(count))
    return best


def write_maps(pid: int, ranges: tuple[Range, Range]) -> str:
    """Map id 0 to the user and 1… to the subordinate ids; say what went wrong, if anything."""
    for tool, own, ids in zip(
        ("newuidmap", "newgidmap"), (os.getuid(), os.getgid()), ranges, strict=True
    ):
        path = _find(tool)
        if path is None:
            return f"{tool} is not installed"
        words = [tool, str(pid), "0", str(own), "1", "1", str(ids.start), str(ids.count)]
        child = os.posix_spawn(path, words, {"PATH": SYSTEM_PATH})
        if os.waitpid(child, 0)[1]:
            return f"{tool} refused to map ids {ids.start} to {ids.start + ids.count - 1}"
    return ""


def _find(tool: str) -> str | None:
    paths = (f"{folder}/{tool}" for folder in SYSTEM_PATH.split(":"))
    return next((path for path in paths if os.access(path, os.X_OK)), None)
