"""Changeset: a layer's tar made from a tree, the same bytes every time.

The tree is an overlay's *upper* directory (or a frozen one): it holds what a step changed, with
overlayfs's own marks for what it removed. The tar says the same in OCI's words (image-spec,
"Representing Changes"): a whiteout ``.wh.NAME`` for a path removed, ``.wh..wh..opq`` for a folder
that hides what lay below it.

These bytes decide the digests of every image ever built here. They depend on nothing but the tree:
entries are sorted by the bytes of their tar names (a folder's ends in "/", so a folder comes
before its contents; only the opaque mark goes straight after its folder), headers as in
``tar_header``, owners in the image's ids, times in whole seconds, extended attributes by
``xattr``. Two zero blocks end the tar. The tree's own root is not an entry.

How it is fast: files are read into one big block, which a second thread hashes while the next is
filled (both system calls and SHA-256 let go of the interpreter). Only two folders are open at a
time, however deep the tree; memory goes with the number of names in one folder, not with the tree.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import ImageError, StoreError
from ..record import record
from . import tar_header as tar
from .digest import Digest
from .idmap import IdMap
from .tar_writer import TarHasher, TarWriter
from .xattr import CAPABILITY, image_capability, is_kept, overlay_name

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARK = b".wh..wh..opq"

_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY
_MARK_MODE = 0o644
# The host kernel stamps files with a clock that is up to one tick behind the one we read.
_CLOCK_TICK_NS = 20_000_000

# What follows the NUL after a name in a folder's listing. NUL sorts before every other byte, so a
# sorted listing is in the order of the tar's names; folders carry "/" instead.
_SYMLINK = b"l"
_SPECIAL = b"s"
_WHITEOUT = b"w"

_Xattrs = dict[bytes, bytes] | None


@record
class Size:
    """How much a changeset is: bytes of the tar, and entries in it."""

    tar_bytes: int
    entries: int


@record
class Clamp:
    """Times at or after ``since`` (seconds) become ``epoch``, on disk and in the tar.

    What a step itself wrote carries the time of the build, which must not reach the digest; what
    it unpacked from packages carries older times, which tell something and stay. Python's byte-code
    names the time of its source (PEP 552), and is put right in the same way, so that it stays valid
    (where ``since`` is 0 nobody can tell which source was new, and it is left alone).
    """

    since: float
    epoch: int

    @property
    def since_ns(self) -> int:
        """The first nanosecond that counts as new."""
        return int(self.since * 1e9) - _CLOCK_TICK_NS


def encode(
    tree: Path,
    sink: Callable[[memoryview], object],
    *,
    idmap: IdMap,
    userxattr: bool,
    clamp: Clamp | None = None,
    for_overlay: bool = False,
) -> Size:
    """Write the tar of ``tree`` to ``sink`` in pieces; each piece is valid during its call only.

    Nothing may write to ``tree`` meanwhile. ``userxattr`` says which names overlayfs uses there.
    With ``for_overlay`` what is removed is said as overlayfs says it, root's and any user's: what
    the tar is unpacked to can be mounted on what lies below it.

    Raises:
        ImageError: a name that OCI reserves for whiteouts, or one that no tar can hold.
        StoreError: the tree was made by an overlay with ``redirect_dir`` or ``metacopy``, or it
            changed while it was read.
    """
    encoder = _ForOverlay if for_overlay else _Encoder
    return encoder(TarWriter(sink), idmap, userxattr, clamp).run(tree)


def tree_digest(
    tree: Path,
    *,
    idmap: IdMap,
    userxattr: bool,
    clamp: Clamp | None = None,
    hasher: TarHasher | None = None,
) -> tuple[Digest, int]:
    """The diff_id of ``tree`` and the bytes of its tar, which is written nowhere.

    ``hasher`` is one that keeps what goes through it.
    """
    with hasher or TarHasher() as hasher:
        size = _Encoder(hasher, idmap, userxattr, clamp).run(tree)
    return hasher.digest, size.tar_bytes


class _Encoder:
    def __init__(
        self,
        writer: TarWriter,
        idmap: IdMap,
        userxattr: bool,
        clamp: Clamp | None,
    ) -> None:
        self._writer = writer
        self._entries = 0
        self._idmap = idmap
        self._image_ids: dict[int, int] = {}
        self._links: dict[int, bytes] = {}
        self._clamp = clamp
        self._since_ns = clamp.since_ns if clamp else 0
        self._opaque = overlay_name("opaque", userxattr=userxattr)
        self._refused = {overlay_name(word, userxattr=userxattr) for word in _REFUSED_FEATURES}

    def run(self, tree: Path) -> Size:
        folder = os.open(tree, _FOLDER)
        try:
            self._device = os.fstat(folder).st_dev
            if self._xattrs(folder, b".")[1]:
                self._opaque_root()
            # The stack holds what is left to do in each folder above; only `folder` is open.
            stack = [(b"", iter(_listing(folder, b"")))]
            while stack:
                prefix, names = stack[-1]
                key = next(names, None)
                if key is None:
                    stack.pop()
                    folder = _replace(folder, b"..") if stack else folder
                elif key.endswith(b"/"):
                    folder = _replace(folder, key[:-1])
                    stack.append((prefix + key, self._folder(folder, prefix + key)))
                else:
                    name, _, kind = key.partition(b"\0")
                    self._leaf(folder, prefix + name, name, kind)
        finally:
            os.close(folder)
        return Size(self._writer.finish(), self._entries)

    def _folder(self, fd: int, path: bytes) -> Iterator[bytes]:
        info = os.fstat(fd)
        xattrs, is_opaque = self._xattrs(fd, path)
        write = self._opaque_folder if is_opaque else self._plain_folder
        write(path, info, self._mtime(info, fd), xattrs)
        # Whatever is mounted there is not the image's.
        return iter(_listing(fd, path) if info.st_dev == self._device else ())

    def _leaf(self, folder: int, path: bytes, name: bytes, kind: bytes) -> None:
        if not kind:
            self._file(folder, path, name)
        elif kind == _WHITEOUT:
            self._whiteout(path)
        else:
            self._special(folder, path, name)

    def _file(self, folder: int, path: bytes, name: bytes) -> None:
        fd = os.open(name, _NO_FOLLOW, dir_fd=folder)
        try:
            info = os.fstat(fd)
            mtime = self._mtime(info, fd)
            if info.st_nlink > 1:
                first = self._links.setdefault(info.st_ino, path)
                if first is not path:
                    self._entry(path, tar.HARD_LINK, info, mtime, link=first)
                    return
            xattrs, _ = self._xattrs(fd, path)
            self._entry(path, tar.FILE, info, mtime, xattrs=xattrs, size=info.st_size)
            if info.st_size:
                if self._clamp and name.endswith(b".pyc"):
                    _clamp_byte_code(folder, name, info.st_mtime_ns, self._clamp)
                self._writer.write_content(fd, info.st_size)
        finally:
            os.close(fd)

    def _special(self, folder: int, path: bytes, name: bytes) -> None:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:  # a socket: it means nothing once its process is gone
            return
        mtime = self._mtime(info, name, folder)
        if kind == tar.SYMLINK:
            target = os.readlink(name, dir_fd=folder)
            self._entry(path, kind, info, mtime, link=os.fsencode(target))
        elif kind == tar.FIFO:
            self._entry(path, kind, info, mtime)
        else:
            device = os.major(info.st_rdev), os.minor(info.st_rdev)
            self._entry(path, kind, info, mtime, device=device)

    def _mtime(self, info: os.stat_result, target: int | bytes, folder: int | None = None) -> int:
        """Whole seconds; a time from the build itself is first replaced on disk."""
        if self._clamp is None or info.st_mtime_ns < self._since_ns:
            return info.st_mtime_ns // 1_000_000_000
        times = (self._clamp.epoch * 1_000_000_000,) * 2
        if isinstance(target, int):
            os.utime(target, ns=times)
        else:
            os.utime(target, ns=times, dir_fd=folder, follow_symlinks=False)
        return self._clamp.epoch

    def _xattrs(self, fd: int, path: bytes) -> tuple[_Xattrs, bool]:
        """The attributes to write, and whether this folder is opaque."""
        names = _list_xattrs(fd)
        if not names:
            return None, False
        for shown in self._refused.intersection(names):
            raise StoreError(f"{os.fsdecode(path)!r} has {shown}: its overlay was mounted wrongly")
        is_opaque = self._opaque in names and os.getxattr(fd, self._opaque) == b"y"
        found: dict[bytes, bytes] = {}
        for shown in names:
            name = os.fsencode(shown)
            value = os.getxattr(fd, name) if is_kept(name) else None
            if name == CAPABILITY and value is not None:
                value = image_capability(value, self._idmap)
            if value is not None:
                if b"=" in name:
                    raise ImageError(f"{os.fsdecode(path)!r}: no tar can hold attribute {shown!r}")
                found[name] = value
        return found, is_opaque

    def _image_id(self, disk_id: int) -> int:
        image_id = self._image_ids.get(disk_id)
        if image_id is None:
            image_id = self._image_ids[disk_id] = self._idmap.to_image(disk_id)
        return image_id

    def _plain_folder(self, path: bytes, info: os.stat_result, mtime: int, xattrs: _Xattrs) -> None:
        self._entry(path, tar.DIRECTORY, info, mtime, xattrs=xattrs)

    def _opaque_folder(
        self, path: bytes, info: os.stat_result, mtime: int, xattrs: _Xattrs
    ) -> None:
        self._plain_folder(path, info, mtime, xattrs)
        self._mark(path + OPAQUE_MARK)

    def _opaque_root(self) -> None:
        self._mark(OPAQUE_MARK)

    def _whiteout(self, path: bytes) -> None:
        self._mark(path)

    def _mark(self, path: bytes) -> None:
        self._entries += 1
        self._writer.write(tar.header(path, tar.FILE, mode=_MARK_MODE))

    def _entry(
        self,
        path: bytes,
        kind: bytes,
        info: os.stat_result,
        mtime: int,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: _Xattrs = None,
    ) -> None:
        self._entries += 1
        self._writer.write(
            tar.header(
                path,
                kind,
                mode=info.st_mode & 0o7777,
                uid=self._image_id(info.st_uid),
                gid=self._image_id(info.st_gid),
                size=size,
                mtime=mtime,
                link=link,
                device=device,
                xattrs=xattrs,
            )
        )


class _ForOverlay(_Encoder):
    """Writes what is removed as the overlays of root and of users read it."""

    def _opaque_folder(
        self, path: bytes, info: os.stat_result, mtime: int, xattrs: _Xattrs
    ) -> None:
        self._plain_folder(path, info, mtime, {**(xattrs or {}), **_OPAQUE})

    def _opaque_root(self) -> None:
        """A tar has no entry for its own root that tools would read."""
        raise StoreError(
            "the layer replaces all below it, which a file of the layer alone cannot say",
            hint="make one of the whole image",
        )

    def _whiteout(self, path: bytes) -> None:
        self._entries += 1
        folder, _, name = path.rpartition(b"/")
        gone = folder + b"/" * bool(folder) + name.removeprefix(WHITEOUT_PREFIX)
        self._writer.write(tar.header(gone, tar.CHAR_DEVICE, mode=0))


_OPAQUE = {overlay_name("opaque", userxattr=user).encode(): b"y" for user in (False, True)}
_REFUSED_FEATURES = ("redirect", "metacopy")
_KINDS = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFIFO: tar.FIFO,
    stat.S_IFCHR: tar.CHAR_DEVICE,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
}


def _clamp_byte_code(folder: int, name: bytes, written_ns: int, clamp: Clamp) -> None:
    """Have byte-code name the time its source is frozen with, if that is another than it had."""
    if not written_ns >= clamp.since_ns > 0:
        return
    with suppress(FileNotFoundError):
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        try:
            flags, seconds = struct.unpack("<II", os.pread(fd, 8, 4).ljust(8, b"\1"))
            if flags == 0 and seconds >= clamp.since_ns // 1_000_000_000:
                os.pwrite(fd, struct.pack("<I", clamp.epoch & 0xFFFFFFFF), 8)
                os.utime(fd, ns=(clamp.epoch * 1_000_000_000,) * 2)
        finally:
            os.close(fd)


def _replace(folder: int, name: bytes) -> int:
    """Open ``name`` seen from ``folder``, which is then closed."""
    opened = os.open(name, _FOLDER, dir_fd=folder)
    os.close(folder)
    return opened


def _listing(folder: int, path: bytes) -> list[bytes]:
    """The names in ``folder`` as they will be in the tar, each with its kind, sorted."""
    with os.scandir(folder) as entries:
        return sorted(_key(entry, path) for entry in entries)


def _key(entry: os.DirEntry[str], path: bytes) -> bytes:
    name = os.fsencode(entry.name)
    if name.startswith(WHITEOUT_PREFIX):
        shown = os.fsdecode(path + name)
        raise ImageError(
            f"{shown!r} cannot be frozen: OCI layers reserve names that begin with .wh.",
            hint="rename or remove it in the cell that made it",
        )
    if entry.is_dir(follow_symlinks=False):
        return name + b"/"
    if entry.is_file(follow_symlinks=False):
        return name + b"\0"
    if entry.is_symlink():
        return name + b"\0" + _SYMLINK
    info = entry.stat(follow_symlinks=False)
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
        return WHITEOUT_PREFIX + name + b"\0" + _WHITEOUT
    return name + b"\0" + _SPECIAL


def _list_xattrs(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
