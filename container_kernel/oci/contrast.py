"""Contrast: which files two merged file systems have not in common.

Two images that share layers can differ only in what the layers above those touched. So the trees of
these layers are read for names alone (`Touched`), and both merged file systems are looked at there
and nowhere else: comparing two environments takes as long as their difference is big.

What runs in one of them may change it meanwhile: folders are gone into by descriptor, and no link
is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..record import record
from .idmap import IdMap
from .xattr import overlay_name

_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_BLOCK = 1 << 20
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@record
class Seen:
    """What one path is. A folder's ``size_bytes`` and ``files`` are those of all below it, where
    all of it was added or removed.
    """

    kind: str
    size_bytes: int
    mode: int
    owner: str
    link: str = ""
    files: int = 0


@record
class Change:
    """One path that is not the same in both; None on the side that has none."""

    path: str
    before: Seen | None
    after: Seen | None
    is_content: bool = False
    """Both are files, of other bytes."""

    @property
    def kind(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


class Touched:
    """Names that layers have, as a tree. ``is_whole``: what lies below is all to be looked at."""

    def __init__(self) -> None:
        self.below: dict[str, Touched] = {}
        self.is_whole = False

    def add(self, layer: Path, *, userxattr: bool, without: Sequence[str] = ()) -> None:
        """Take up the names in a layer's tree, but for those ``without``."""
        fd = os.open(layer, _FOLDER)
        try:
            self._add(fd, overlay_name("opaque", userxattr=userxattr), without, "")
        finally:
            os.close(fd)

    def _add(self, fd: int, opaque: str, without: Sequence[str], here: str) -> None:
        if here and opaque in os.listxattr(fd):
            self.is_whole = True
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in found:
            path = f"{here}/{name}"
            if path in without:
                continue
            one = self.below.setdefault(name, Touched())
            if is_folder:
                inside = os.open(name, _FOLDER, dir_fd=fd)
                try:
                    one._add(inside, opaque, without, path)
                finally:
                    os.close(inside)
            else:  # a whiteout hides a folder of that name, and a file may take the place of one
                one.is_whole = True


def contrast(
    before: int, after: int, touched: Touched, idmaps: tuple[IdMap, IdMap]
) -> list[Change]:
    """What changed from one root folder to another, sorted by path; each has its own ids."""
    return list(_Comparison(idmaps).folders(before, after, touched, ""))


class _Comparison:
    def __init__(self, idmaps: tuple[IdMap, IdMap]) -> None:
        self._idmaps = idmaps

    def folders(self, before: int, after: int, touched: Touched, here: str) -> Iterator[Change]:
        names = set(touched.below)
        if touched.is_whole:
            names |= {*os.listdir(before), *os.listdir(after)}
        for name in sorted(names):
            one = touched.below.get(name) or Touched()
            one.is_whole = one.is_whole or touched.is_whole
            yield from self._one((before, after), name, one, f"{here}/{name}")

    def _one(
        self, folders: tuple[int, int], name: str, touched: Touched, path: str
    ) -> Iterator[Change]:
        old, new = (_seen(fd, name, idmap) for fd, idmap in zip(folders, self._idmaps, strict=True))
        are_both = [seen is not None and seen.kind == "folder" for seen in (old, new)]
        if old is not None and new is not None and old.kind == new.kind:
            is_content = old.kind == "file" and _differ(folders, name)
            if is_content or (old.mode, old.owner, old.link) != (new.mode, new.owner, new.link):
                yield Change(path, old, new, is_content)
        elif old is not None or new is not None:
            old, new = (
                _whole(fd, name, seen) for fd, seen in zip(folders, (old, new), strict=True)
            )
            yield Change(path, old, new)
        if all(are_both):
            inside = [os.open(name, _FOLDER, dir_fd=fd) for fd in folders]
            try:
                yield from self.folders(inside[0], inside[1], touched, path)
            finally:
                for fd in inside:
                    os.close(fd)


def _seen(folder: int, name: str, idmap: IdMap) -> Seen | None:
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        is_link = stat.S_ISLNK(info.st_mode)
        link = os.readlink(name, dir_fd=folder) if is_link else ""
    except FileNotFoundError:
        return None
    ids = (idmap.to_image(number) for number in (info.st_uid, info.st_gid))
    return Seen(
        _KINDS.get(stat.S_IFMT(info.st_mode), "special"),
        info.st_size if stat.S_ISREG(info.st_mode) else 0,
        0o777 if is_link else stat.S_IMODE(info.st_mode),
        ":".join(map(str, ids)),
        link,
    )


def _whole(folder: int, name: str, seen: Seen | None) -> Seen | None:
    """A folder with all below it as one thing: nobody reads three thousand lines."""
    if seen is None or seen.kind != "folder":
        return seen
    size = files = 0
    for _, _, names, fd in os.fwalk(name, dir_fd=folder, follow_symlinks=False):
        files += len(names)
        size += sum(os.stat(one, dir_fd=fd, follow_symlinks=False).st_size for one in names)
    return Seen(seen.kind, size, seen.mode, seen.owner, files=files)


def _differ(folders: tuple[int, int], name: str) -> bool:
    """Whether two files have other bytes."""
    fds: list[int] = []
    try:
        for folder in folders:
            fds.append(os.open(name, _FILE, dir_fd=folder))
        if os.fstat(fds[0]).st_size != os.fstat(fds[1]).st_size:
            return True
        while True:
            old, new = (os.read(fd, _BLOCK) for fd in fds)
            if old != new:
                return True
            if not old:
                return False
    finally:
        for fd in fds:
            os.close(fd)
