"""Decoder: a layer's tar, which nobody vouches for, made into a tree for an overlay's *lower*.

The tree says with overlayfs's marks what the tar says with OCI's: a whiteout becomes a character
device 0:0, an opaque folder gets an attribute. Each layer gets a folder of its own, so nothing in
it can reach what another layer made.

What hostile layers meet here (the tests name the CVEs): no link is ever followed (``target``), no
content is written through an existing name, devices are left out, owners come from ``IdMap``,
attributes are kept by a list (``xattr``), and a path with ".." is refused. Whiteouts hide only what
is below their layer, wherever in the tar they stand.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import ContainerKernelError, ImageError, StoreError, out_of_files
from . import tar_header as tar
from .changeset import OPAQUE_MARK, WHITEOUT_PREFIX, Size
from .idmap import IdMap
from .tar_reader import Entry, Stream, TarReader
from .target import Parts, Target
from .xattr import CAPABILITY, disk_capability, is_kept, overlay_name

MAX_ENTRIES = 4_000_000

# What aufs left in old images: its own bookkeeping, no part of any tree.
_AUFS_PREFIX = b".wh..wh."
_MAX_ID = (1 << 32) - 2
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FIFO = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_FITTING = {errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.ENOTSUP, errno.EINVAL}


def apply(
    stream: Stream,
    root: int,
    *,
    idmap: IdMap,
    userxattr: bool,
    parents: Callable[[], Sequence[int]] = tuple,
    max_entries: int = MAX_ENTRIES,
) -> Size:
    """Unpack the layer ``stream`` into the empty folder open as ``root``.

    ``parents`` gives descriptors of the frozen trees below, topmost first, for the owner and mode
    of folders the layer uses without describing them; it is called at the end, if there are any.
    After an error the folder is half made; throw it away.

    Raises:
        ImageError: the tar is malformed, or an entry is not allowed; the message names it.
        StoreError: the disk is full.
    """
    target = Target(
        root,
        opaque=overlay_name("opaque", userxattr=userxattr),
        owner=idmap.to_disk(0),
    )
    reader = TarReader(stream)
    unpacker = _Unpacker(reader, target, idmap)
    count = 0
    try:
        for entry in reader:
            count += 1
            if count > max_entries:
                raise ImageError(f"the layer has more than {max_entries} entries")
            unpacker.add(entry)
        target.finish(parents)
    finally:
        target.close()
    return Size(reader.position, count)


class _Unpacker:
    def __init__(self, reader: TarReader, target: Target, idmap: IdMap) -> None:
        self._reader = reader
        self._target = target
        self._idmap = idmap
        self._disk_ids: dict[int, int] = {}

    def add(self, entry: Entry) -> None:
        parts = _parts(entry.path, entry)
        try:
            self._add(entry, parts)
        except OSError as error:
            raise _failure(entry, error) from error

    def _add(self, entry: Entry, parts: Parts) -> None:
        if not parts:
            if entry.kind != tar.DIRECTORY:
                raise ImageError(f"layer entry {entry.shown} would replace the root folder")
        elif parts[-1] == OPAQUE_MARK:
            self._target.hide_below(self._target.folder(_unmarked(parts[:-1], entry)))
        elif any(part.startswith(_AUFS_PREFIX) for part in parts):
            return
        elif parts[-1].startswith(WHITEOUT_PREFIX):
            self._whiteout(entry, parts)
        else:
            _MAKERS[entry.kind](self, entry, _unmarked(parts, entry))

    def _whiteout(self, entry: Entry, parts: Parts) -> None:
        hidden = parts[-1][len(WHITEOUT_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise ImageError(f"layer entry {entry.shown} is a whiteout of nothing")
        self._target.whiteout((*_unmarked(parts[:-1], entry), hidden))

    def _folder(self, entry: Entry, parts: Parts) -> None:
        owner = self._owner(entry)
        fd = self._target.make_folder(parts, entry.mode, entry.mtime_ns)
        os.fchown(fd, *owner)
        self._set_xattrs(fd, entry)

    def _file(self, entry: Entry, parts: Parts) -> None:
        if entry.path.endswith(b"/"):
            raise ImageError(f"layer entry {entry.shown} is a file named like a folder")
        owner = self._owner(entry)
        fd = self._create(entry, parts)
        try:
            self._write(fd, entry.size)
            self._dress(fd, entry, owner)
        finally:
            os.close(fd)

    def _create(self, entry: Entry, parts: Parts) -> int:
        """A new file, never what has its name already."""
        mode = entry.mode & 0o777
        try:
            return os.open(parts[-1], _CREATE, mode, dir_fd=self._target.folder(parts[:-1]))
        except FileExistsError:
            return os.open(parts[-1], _CREATE, mode, dir_fd=self._target.make_room(parts))

    def _write(self, fd: int, size: int) -> None:
        """Write the content; long runs of zeros become holes."""
        is_hole = False
        for chunk in self._reader.content():
            is_hole = len(chunk) == len(_HOLE) and chunk == _HOLE
            if is_hole:
                os.lseek(fd, len(chunk), os.SEEK_CUR)
                continue
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(fd, rest) :]
        if is_hole:
            os.ftruncate(fd, size)

    def _dress(self, fd: int, entry: Entry, owner: tuple[int, int]) -> None:
        """Give a new file owner, mode, attributes and time: those that it does not have yet."""
        info = os.fstat(fd)
        # In this order: a change of owner clears set-user-id bits and capabilities.
        if (info.st_uid, info.st_gid) != owner:
            os.fchown(fd, *owner)
        if stat.S_IMODE(info.st_mode) != entry.mode:
            os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _hard_link(self, entry: Entry, parts: Parts) -> None:
        source = _unmarked(_parts(entry.link, entry), entry)
        if not source or source == parts:
            raise ImageError(f"layer entry {entry.shown} is a hard link to itself or to a folder")
        here = self._target.existing(source[:-1])
        try:
            info = _lstat(here, source[-1])
            if info is None or not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                raise ImageError(
                    f"layer entry {entry.shown} is a hard link to something that is no file here"
                )
            there = self._target.make_room(parts)
            os.link(source[-1], parts[-1], src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
        finally:
            os.close(here)

    def _symlink(self, entry: Entry, parts: Parts) -> None:
        if not entry.link:
            raise ImageError(f"layer entry {entry.shown} is a symbolic link to nothing")
        owner = self._owner(entry)
        here = self._target.make_room(parts)
        os.symlink(entry.link, parts[-1], dir_fd=here)
        os.chown(parts[-1], *owner, dir_fd=here, follow_symlinks=False)
        times = entry.mtime_ns, entry.mtime_ns
        os.utime(parts[-1], ns=times, dir_fd=here, follow_symlinks=False)

    def _fifo(self, entry: Entry, parts: Parts) -> None:
        owner = self._owner(entry)
        here = self._target.make_room(parts)
        os.mkfifo(parts[-1], 0o600, dir_fd=here)
        # Opening a FIFO to read does not wait; by its descriptor it cannot be swapped for a link.
        fd = os.open(parts[-1], _OPEN_FIFO, dir_fd=here)
        try:
            os.fchown(fd, *owner)
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _device(self, entry: Entry, parts: Parts) -> None:
        """Left out: containers get their own /dev, and 0:0 would be a whiteout to the overlay."""

    def _set_xattrs(self, fd: int, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if not is_kept(name):
                continue
            kept = disk_capability(value) if name == CAPABILITY else value
            if kept is None or (name == CAPABILITY and entry.kind != tar.FILE):
                continue
            try:
                os.setxattr(fd, name, kept)
            except OSError as error:
                if error.errno not in _NOT_FITTING:
                    raise
                shown = name[:100].decode("utf-8", "backslashreplace")
                raise ImageError(
                    f"layer entry {entry.shown}: this file system cannot hold its {shown!r}"
                ) from error

    def _owner(self, entry: Entry) -> tuple[int, int]:
        return self._disk_id(entry.uid, entry), self._disk_id(entry.gid, entry)

    def _disk_id(self, image_id: int, entry: Entry) -> int:
        disk_id = self._disk_ids.get(image_id)
        if disk_id is None:
            if image_id > _MAX_ID:
                raise ImageError(f"layer entry {entry.shown} belongs to impossible id {image_id}")
            disk_id = self._disk_ids[image_id] = self._idmap.to_disk(image_id)
        return disk_id


_HOLE = bytes(256 << 10)
_MAKERS = {
    tar.FILE: _Unpacker._file,
    tar.HARD_LINK: _Unpacker._hard_link,
    tar.SYMLINK: _Unpacker._symlink,
    tar.DIRECTORY: _Unpacker._folder,
    tar.FIFO: _Unpacker._fifo,
    tar.CHAR_DEVICE: _Unpacker._device,
    tar.BLOCK_DEVICE: _Unpacker._device,
}


def _parts(path: bytes, entry: Entry) -> Parts:
    """The names in ``path``; a leading "/" or "./" means the layer's root."""
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise ImageError(f"layer entry {entry.shown} leads out of its folder with '..'")
    if not path:
        raise ImageError("a layer entry has an empty path")
    return parts


def _unmarked(parts: Parts, entry: Entry) -> Parts:
    if any(part.startswith(WHITEOUT_PREFIX) for part in parts):
        raise ImageError(f"layer entry {entry.shown} uses a whiteout as a folder or target")
    return parts


def _lstat(here: int, name: bytes) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=here, follow_symlinks=False)
    return None


def _failure(entry: Entry, error: OSError) -> ContainerKernelError:
    if host_error := out_of_files(error, f"no layer entry {entry.shown}"):
        return host_error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"no space left for layer entry {entry.shown}",
            hint="free space or inodes on the store's volume, then try again",
        )
    return ImageError(f"layer entry {entry.shown} cannot be made: {error.strerror}")
