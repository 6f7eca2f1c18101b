"""Target: the folder a layer is unpacked into, and the only thing its entries can touch.

Every path is walked from the folder's descriptor one name at a time, without following a link and
without "..": there is no moment at which a link, made by the layer or swapped in by another
process, decides where a write goes. A path that leads through a link is refused; no image builder
writes one, since a tree has no such path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import ImageError

Parts = tuple[bytes, ...]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT_DEVICE = os.makedev(0, 0)
_IMPLIED_MODE = 0o755
_MOST_OPEN = 100
_CLOSED = -1


class Target:
    """A tree being made below ``root``, which stays open and the caller's.

    A folder that the layer uses without describing belongs to ``owner``, or takes after the one
    below that it will be merged with, see `finish`.
    """

    def __init__(self, root: int, *, opaque: str, owner: int) -> None:
        self._root = root
        self._opaque = opaque
        self._owner = owner
        self._times: dict[bytes, tuple[int, int]] = {}
        self._implied: dict[bytes, Parts] = {}
        self._open_parts: Parts = ()
        # Those on the way to the last one used; of very deep ones the middle is closed again.
        self._fds: list[int] = []

    def folder(self, parts: Parts) -> int:
        """A descriptor of the folder ``parts``, made with all above it if it is missing.

        It is valid until the next call.

        Raises:
            ImageError: something on the way is no folder.
        """
        if parts == self._open_parts:
            return self._here
        self._leave(_common(parts, self._open_parts))
        for depth in range(len(self._fds), len(parts)):
            below = self._enter(self._here, parts[: depth + 1])
            if depth >= _MOST_OPEN:
                os.close(self._fds[-1])
                self._fds[-1] = _CLOSED
            self._fds.append(below)
            self._open_parts = parts[: depth + 1]
        return self._here

    def existing(self, parts: Parts) -> int:
        """A descriptor of its own of a folder that must be there; the caller closes it."""
        return _walk(self._root, parts)

    def make_folder(self, parts: Parts, mode: int, mtime_ns: int) -> int:
        """Make the folder ``parts`` or take the one that is there; its mode and time come last."""
        here = self.folder(parts[:-1])
        was_whiteout = False
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=here)
        except FileExistsError:
            was_whiteout = self._clear(here, parts, keep_folder=True)
            with suppress(FileExistsError):
                os.mkdir(parts[-1], 0o700, dir_fd=here)
        path = b"/".join(parts)
        self._times[path] = mode, mtime_ns
        self._implied.pop(path, None)
        fd = self.folder(parts)
        if was_whiteout:
            self.hide_below(fd)
        return fd

    def make_room(self, parts: Parts) -> int:
        """Remove what has the name ``parts``; returns the folder it is to be made in."""
        here = self.folder(parts[:-1])
        self._clear(here, parts, keep_folder=False)
        return self.folder(parts[:-1])

    def whiteout(self, parts: Parts) -> None:
        """Hide ``parts`` of the layers below. What this very layer has there stays."""
        here = self.folder(parts[:-1])
        info = _lstat(here, parts[-1])
        if info is None:
            os.mknod(parts[-1], stat.S_IFCHR, _WHITEOUT_DEVICE, dir_fd=here)
        elif stat.S_ISDIR(info.st_mode):
            self.hide_below(self.folder(parts))

    def hide_below(self, folder: int) -> None:
        """Make a folder opaque: nothing of the same folder in the layers below is seen."""
        os.setxattr(folder, self._opaque, b"y")

    def finish(self, parents: Callable[[], Sequence[int]] = tuple) -> None:
        """Give all folders their modes and times, now that nothing is made in them any more.

        ``parents`` gives descriptors of the frozen trees below, topmost first. It is asked only if
        there is a folder that the layer did not describe.
        """
        if self._implied:
            self._inherit(parents())
        for path in sorted(self._times):  # so that each is opened from its parent
            mode, mtime_ns = self._times[path]
            fd = self.folder(tuple(path.split(b"/")))
            os.fchmod(fd, mode)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        self.close()

    def close(self) -> None:
        """Let go of what is open; ``root`` stays the caller's."""
        self._leave(0)

    @property
    def _here(self) -> int:
        return self._fds[-1] if self._fds else self._root

    def _enter(self, here: int, parts: Parts) -> int:
        """Open the last of ``parts`` seen from ``here``, making it if the layer only implied it."""
        try:
            return os.open(parts[-1], _FOLDER, dir_fd=here)
        except OSError as error:
            info = _lstat(here, parts[-1])
            if info is not None and not _is_whiteout(info):
                raise _explained(error, parts) from None
        if info is not None:
            os.unlink(parts[-1], dir_fd=here)
        os.mkdir(parts[-1], 0o700, dir_fd=here)
        fd = os.open(parts[-1], _FOLDER, dir_fd=here)
        os.fchown(fd, self._owner, self._owner)
        path = b"/".join(parts)
        self._times[path] = _IMPLIED_MODE, 0
        self._implied[path] = parts
        if info is not None:
            self.hide_below(fd)
        return fd

    def _inherit(self, parents: Sequence[int]) -> None:
        for path, parts in self._implied.items():
            for parent in parents:
                with suppress(ImageError):
                    below = _walk(parent, parts)
                    try:
                        info = os.fstat(below)
                    finally:
                        os.close(below)
                    os.fchown(self.folder(parts), info.st_uid, info.st_gid)
                    self._times[path] = info.st_mode & 0o7777, info.st_mtime_ns
                    break

    def _clear(self, here: int, parts: Parts, *, keep_folder: bool) -> bool:
        """Remove what is at ``parts``; returns whether that was a whiteout."""
        info = _lstat(here, parts[-1])
        if info is None:
            return False
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(parts[-1], dir_fd=here)
            return _is_whiteout(info)
        if not keep_folder:
            self._remove_folder(here, parts)
        return False

    def _remove_folder(self, here: int, parts: Parts) -> None:
        try:
            os.rmdir(parts[-1], dir_fd=here)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise ImageError(f"{_shown(parts)} replaces a folder that is not empty") from None
            raise
        path = b"/".join(parts)
        self._times.pop(path, None)
        self._implied.pop(path, None)
        self._leave(min(len(parts) - 1, len(self._open_parts)))

    def _leave(self, depth: int) -> None:
        """Close all folders further down than ``depth``."""
        while len(self._fds) > depth or (self._fds and self._fds[-1] == _CLOSED):
            if (fd := self._fds.pop()) != _CLOSED:
                os.close(fd)
        self._open_parts = self._open_parts[: len(self._fds)]


def _common(one: Parts, other: Parts) -> int:
    """How many names both begin with."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _walk(root: int, parts: Parts) -> int:
    fd = os.dup(root)
    for depth in range(len(parts)):
        try:
            below = _open(fd, parts[: depth + 1])
        finally:
            os.close(fd)
        fd = below
    return fd


def _open(here: int, parts: Parts) -> int:
    try:
        return os.open(parts[-1], _FOLDER, dir_fd=here)
    except OSError as error:
        raise _explained(error, parts) from None


def _explained(error: OSError, parts: Parts) -> OSError | ImageError:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return ImageError(f"a path of the layer leads through {_shown(parts)}, no folder")
    if error.errno == errno.ENOENT:
        return ImageError(f"there is no folder {_shown(parts)} in the layer")
    return error


def _lstat(here: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == _WHITEOUT_DEVICE


def _shown(parts: Parts) -> str:
    return repr(b"/".join(parts)[:200].decode("utf-8", "backslashreplace"))
