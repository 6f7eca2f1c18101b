"""Tar headers, written one way only: the same entry always becomes the same bytes.

The layout is POSIX ustar. What ustar cannot say (paths over 100 bytes, sizes of 8 GiB, ids over
2097151, times outside 1970-2242, extended attributes) goes into a PAX header in front of it
(pax(1), "pax Header Block"), and only then. The ustar ``prefix`` field is never used, so there is
one way to write a long path. Names are bytes and stay as they are: no reader we know minds UTF-8
or even invalid UTF-8 in the ustar name field, and owners are numbers, never names.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

BLOCK = 512

FILE = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHAR_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
PAX = b"x"

XATTR_PREFIX = b"SCHILY.xattr."

_NAME_BYTES = 100
_MAX_7_DIGITS = 0o7777777
_MAX_11_DIGITS = 0o77777777777
# Magic and version, then the two empty owner names; last the empty prefix and the padding.
_MAGIC = b"ustar\x0000" + bytes(64)
_REST = bytes(167)
_PAX_NAME = b"././@PaxHeader"


def header(
    path: bytes,
    kind: bytes,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The one or more blocks that introduce an entry; its content follows them.

    ``mtime`` counts whole seconds, ``device`` is (major, minor), ``xattrs`` are by full name.
    """
    records: dict[bytes, bytes] = {}
    if len(path) > _NAME_BYTES:
        records[b"path"] = path
    if len(link) > _NAME_BYTES:
        records[b"linkpath"] = link
    if uid > _MAX_7_DIGITS:
        records[b"uid"] = b"%d" % uid
        uid = 0
    if gid > _MAX_7_DIGITS:
        records[b"gid"] = b"%d" % gid
        gid = 0
    if size > _MAX_11_DIGITS:
        records[b"size"] = b"%d" % size
        size = 0
    if not 0 <= mtime <= _MAX_11_DIGITS:
        records[b"mtime"] = b"%d" % mtime
        mtime = 0
    if xattrs:
        records.update((XATTR_PREFIX + name, value) for name, value in xattrs.items())
    block = _ustar(path, (mode, uid, gid, size, mtime), kind, link, device)
    return _pax(records) + block if records else block


def padding(size: int) -> int:
    """How many zero bytes follow a content of ``size`` bytes."""
    return -size % BLOCK


def _ustar(
    path: bytes,
    numbers: tuple[int, int, int, int, int],
    kind: bytes,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One block; ``numbers`` are mode, uid, gid, size and mtime."""
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        path[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
        *numbers,
    )
    tail = b"%s%s%s%07o\0%07o\0%s" % (
        kind,
        link[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
        _MAGIC,
        *device,
        _REST,
    )
    # The low half of an Adler-32 is 1 + the sum of the bytes modulo 65521. A header's bytes cannot
    # sum up to that much (two names of 100 bytes at most), and zlib adds faster than sum() does.
    total = (zlib.adler32(b"%s        %s" % (head, tail)) & 0xFFFF) - 1
    return b"%s%06o\0 %s" % (head, total, tail)


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    block = _ustar(_PAX_NAME, (0, 0, 0, len(body), 0), PAX)
    return block + body + bytes(padding(len(body)))


def _record(key: bytes, value: bytes) -> bytes:
    """A PAX record: its length (counting its own digits), a blank, key=value and a newline."""
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    if len(str(length)) > len(str(bare)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
