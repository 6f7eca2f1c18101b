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
from collections.abc import Sequence
from contextlib import suppress

from ..errors import ImageError

Parts = tuple[bytes, ...]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT_DEVICE = os.makedev(0, 0)
_IMPLIED_MODE = 0o755


class Target:
    """A tree being made below ``root``, which stays open and the caller's.

    ``parents`` are the frozen trees below this layer, topmost first: a folder that the layer uses
    without describing takes after the one it will be merged with, and else belongs to ``owner``.
    """

    def __init__(self, root: int, *, opaque: str, owner: int, parents: Sequence[int] = ()) -> None:
        self._root = root
        self._opaque = opaque
        self._owner = owner
        self._parents = parents
        self._times: dict[bytes, tuple[int, int]] = {}
        self._open_parts: Parts = ()
        self._open_fd: int | None = None

    def folder(self, parts: Parts) -> int:
        """A descriptor of the folder ``parts``, made with all above it if it is missing.

        It is valid until the next call.

        Raises:
            ImageError: something on the way is no folder.
        """
        if parts == self._open_parts:
            return self._root if self._open_fd is None else self._open_fd
        done = len(self._open_parts)
        if self._open_fd is None or parts[:done] != self._open_parts:
            self._close()
            done = 0
        for depth in range(done, len(parts)):
            here = self._root if self._open_fd is None else self._open_fd
            below = self._enter(here, parts[: depth + 1])
            if self._open_fd is not None:
                os.close(self._open_fd)
            self._open_parts, self._open_fd = parts[: depth + 1], below
        return self.folder(parts)

    def existing(self, parts: Parts) -> int:
        """A descriptor of its own of a folder that must be there; the caller closes it."""
        return _walk(self._root, parts)

    def make_folder(self, parts: Parts, mode: int, mtime_ns: int) -> int:
        """Make the folder ``parts`` or take the one that is there; its mode and time come last."""
        here = self.folder(parts[:-1])
        was_whiteout = self._clear(here, parts, keep_folder=True)
        with suppress(FileExistsError):
            os.mkdir(parts[-1], 0o700, dir_fd=here)
        self._times[b"/".join(parts)] = mode, mtime_ns
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

    def finish(self) -> None:
        """Give all folders their modes and times, now that nothing is made in them any more."""
        for path in sorted(self._times):  # so that most are opened from their parent
            mode, mtime_ns = self._times[path]
            fd = self.folder(tuple(path.split(b"/")))
            os.fchmod(fd, mode)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        self.close()

    def close(self) -> None:
        """Let go of what is open; ``root`` stays the caller's."""
        self._close()

    def _enter(self, here: int, parts: Parts) -> int:
        """Open the last of ``parts`` seen from ``here``, making it if the layer only implied it."""
        info = _lstat(here, parts[-1])
        if info is None or _is_whiteout(info):
            if info is not None:
                os.unlink(parts[-1], dir_fd=here)
            os.mkdir(parts[-1], 0o700, dir_fd=here)
            fd = os.open(parts[-1], _FOLDER, dir_fd=here)
            self._inherit(fd, parts)
            if info is not None:
                self.hide_below(fd)
            return fd
        return _open(here, parts)

    def _inherit(self, fd: int, parts: Parts) -> None:
        mode, mtime_ns = _IMPLIED_MODE, 0
        owner = self._owner, self._owner
        for parent in self._parents:
            with suppress(ImageError):
                below = _walk(parent, parts)
                try:
                    info = os.fstat(below)
                finally:
                    os.close(below)
                owner = info.st_uid, info.st_gid
                mode, mtime_ns = info.st_mode & 0o7777, info.st_mtime_ns
                break
        os.fchown(fd, *owner)
        self._times[b"/".join(parts)] = mode, mtime_ns

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
        self._times.pop(b"/".join(parts), None)
        if self._open_parts[: len(parts)] == parts:
            self._close()

    def _close(self) -> None:
        if self._open_fd is not None:
            os.close(self._open_fd)
        self._open_parts, self._open_fd = (), None


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
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise ImageError(
                f"a path of the layer leads through {_shown(parts)}, no folder"
            ) from None
        if error.errno == errno.ENOENT:
            raise ImageError(f"there is no folder {_shown(parts)} in the layer") from None
        raise


def _lstat(here: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == _WHITEOUT_DEVICE


def _shown(parts: Parts) -> str:
    return repr(b"/".join(parts)[:200].decode("utf-8", "backslashreplace"))
