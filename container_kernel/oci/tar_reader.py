"""Tar entries read from a stream nobody vouches for.

Why not ``tarfile``: it believes a PAX header of any length, lets global headers rewrite what
follows, takes the last of two contradicting records and guesses where bytes are wrong. Two readers
that guess differently see two different layers under one digest. This one reads what image
builders write (POSIX ustar and PAX, GNU long names and binary numbers, v7) and refuses the rest by
name, in memory that does not depend on what the headers claim.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol

from ..errors import ImageError
from ..record import field, record
from . import tar_header as tar

MAX_PATH_BYTES = 16 << 10
_MAX_EXTRA_BYTES = 1 << 20
_MAX_SIZE = 1 << 60
_CHUNK_BYTES = 256 << 10

_KINDS = frozenset(
    (
        tar.FILE,
        tar.HARD_LINK,
        tar.SYMLINK,
        tar.CHAR_DEVICE,
        tar.BLOCK_DEVICE,
        tar.DIRECTORY,
        tar.FIFO,
    )
)
_V7_FILE, _CONTIGUOUS_FILE, _GLOBAL = b"\0", b"7", b"g"
_GNU_NAME, _GNU_LINK = b"L", b"K"
_SPARSE = b"S"

_RECORD = re.compile(rb"([1-9][0-9]{0,8}) ")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_SECONDS = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]*))?")
# Records of a global header that say nothing about any entry.
_HARMLESS = frozenset((b"comment", b"hdrcharset", b"charset"))


class Stream(Protocol):
    """Where the bytes come from; a read gives at most ``size`` bytes, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


@record
class Entry:
    """One entry of a tar, with the values that count after all its headers were read."""

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The path, for messages."""
        text = repr(self.path[:200].decode("utf-8", "backslashreplace"))
        return text if len(self.path) <= 200 else text + "…"


class TarReader:
    """The entries of ``stream``, one after the other.

    Iterating raises ``ImageError`` for anything malformed or ambiguous. When it ends without
    error, the whole stream was read. ``skip`` jumps over that many bytes of content nobody reads,
    where the stream can; it returns how many there were.
    """

    def __init__(self, stream: Stream, skip: Callable[[int], int] | None = None) -> None:
        self._stream = stream
        self._skip = skip
        self._left = 0
        self._gap = 0
        self.position = 0

    def __iter__(self) -> Iterator[Entry]:
        while (block := self._next_header()) is not None:
            records: dict[bytes, bytes] = {}
            while block[156:157] in _EXTRAS:
                _EXTRAS[block[156:157]](self, block, records)
                following = self._next_header()
                if following is None:
                    raise ImageError("the tar ends after an extended header")
                block = following
            entry = _entry(block, records)
            self._left, self._gap = entry.size, tar.padding(entry.size)
            yield entry

    def content(self) -> Iterator[bytes]:
        """The content of the entry just yielded, in pieces. What is not read is skipped."""
        while self._left:
            chunk = self._exactly(min(self._left, _CHUNK_BYTES))
            self._left -= len(chunk)
            yield chunk
        gap, self._gap = self._gap, 0
        self._exactly(gap)

    def _next_header(self) -> bytes | None:
        if self._skip is not None:
            self._jump(self._skip)
        for _ in self.content():
            pass
        block = self._block()
        if block is None:
            return None
        if not any(block):
            self._end()
            return None
        _check_sum(block)
        return block

    def _jump(self, skip: Callable[[int], int]) -> None:
        skipped = skip(self._left)
        self.position += skipped
        if skipped < self._left:
            raise ImageError("the tar is cut off in the middle of an entry")
        self._left = 0

    def _end(self) -> None:
        """Two zero blocks end a tar; writers may pad them with more zeros, and nothing else."""
        block = self._block()
        while block is not None:
            if block.strip(b"\0"):
                raise ImageError("the tar has data after its end")
            block = self._block()

    def _block(self) -> bytes | None:
        block = self._some(tar.BLOCK)
        if block and len(block) < tar.BLOCK:
            raise ImageError("the tar is cut off in a header")
        return block or None

    def _some(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end of the stream."""
        data = self._stream.read(size)
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self.position += len(data)
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._some(size)
        if len(data) < size:
            raise ImageError("the tar is cut off in the middle of an entry")
        return data

    def _extra(self, block: bytes) -> bytes:
        size = _number(block[124:136], "size")
        if size > _MAX_EXTRA_BYTES:
            raise ImageError(f"an extended tar header claims {size} bytes")
        return self._exactly(size + tar.padding(size))[:size]

    def _pax(self, block: bytes, records: dict[bytes, bytes]) -> None:
        for key, value in _records(self._extra(block)):
            _add(records, key, value)

    def _global(self, block: bytes, _: dict[bytes, bytes]) -> None:
        for key, _value in _records(self._extra(block)):
            if key not in _HARMLESS:
                raise ImageError(f"a global tar header sets {_text(key)} for all entries")

    def _gnu_name(self, block: bytes, records: dict[bytes, bytes]) -> None:
        _add(records, b"path", self._extra(block).split(b"\0", 1)[0])

    def _gnu_link(self, block: bytes, records: dict[bytes, bytes]) -> None:
        _add(records, b"linkpath", self._extra(block).split(b"\0", 1)[0])


_EXTRAS = {
    tar.PAX: TarReader._pax,
    _GLOBAL: TarReader._global,
    _GNU_NAME: TarReader._gnu_name,
    _GNU_LINK: TarReader._gnu_link,
}


def _add(records: dict[bytes, bytes], key: bytes, value: bytes) -> None:
    if key in records:
        raise ImageError(f"a tar entry has two values for {_text(key)}")
    if key.startswith(b"GNU.sparse."):
        raise ImageError("the tar holds a sparse file, which layers may not")
    records[key] = value


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start < len(body):
        match = _RECORD.match(body, start)
        end = start + int(match[1]) if match else 0
        if not match or end > len(body) or end <= match.end() or body[end - 1 : end] != b"\n":
            raise ImageError("a PAX header is malformed")
        key, equals, value = body[match.end() : end - 1].partition(b"=")
        if not key or not equals or b"\0" in key:
            raise ImageError("a PAX header is malformed")
        yield key, value
        start = end


def _entry(block: bytes, records: dict[bytes, bytes]) -> Entry:
    kind = block[156:157]
    path = records.get(b"path") or _path(block)
    if kind == _V7_FILE:
        kind = tar.DIRECTORY if path.endswith(b"/") else tar.FILE
    elif kind == _CONTIGUOUS_FILE:
        kind = tar.FILE
    link = records.get(b"linkpath") or _string(block[157:257])
    for text in (path, link):
        if b"\0" in text or len(text) > MAX_PATH_BYTES:
            raise ImageError(f"a tar entry has an impossible path: {_text(text[:200])}")
    entry = Entry(
        path=path,
        kind=kind,
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_decimal(records, b"uid", block[108:116]),
        gid=_decimal(records, b"gid", block[116:124]),
        size=_decimal(records, b"size", block[124:136]),
        mtime_ns=_time(records.get(b"mtime"), block[136:148]),
        link=link,
        xattrs={
            key[len(tar.XATTR_PREFIX) :]: value
            for key, value in records.items()
            if key.startswith(tar.XATTR_PREFIX)
        },
    )
    if kind not in _KINDS:
        what = "a sparse file" if kind == _SPARSE else f"of unknown kind {_text(kind)}"
        raise ImageError(f"tar entry {entry.shown} is {what}")
    if entry.size and kind != tar.FILE:
        raise ImageError(f"tar entry {entry.shown} has content but is no file")
    return entry


def _path(block: bytes) -> bytes:
    name = _string(block[0:100])
    # GNU's own format ("ustar  ") keeps other things where POSIX has the prefix.
    prefix = _string(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _string(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _number(data: bytes, what: str) -> int:
    """An octal number, or GNU's binary form when the top bit is set."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big", signed=True) if data[0] == 0xFF else _binary(data)
    else:
        digits = _string(data.lstrip(b"\0")).strip(b" ")
        if digits.strip(b"01234567"):
            raise ImageError(f"a tar header has a malformed {what}: {_text(digits)}")
        value = int(digits or b"0", 8)
    if what != "mtime" and not 0 <= value <= _MAX_SIZE:
        raise ImageError(f"a tar header has an impossible {what}: {value}")
    return value


def _binary(data: bytes) -> int:
    return int.from_bytes(bytes([data[0] & 0x7F]) + data[1:], "big")


def _decimal(records: dict[bytes, bytes], key: bytes, fallback: bytes) -> int:
    text = records.get(key)
    if not text:
        return _number(fallback, key.decode())
    if not _DECIMAL.fullmatch(text) or int(text) > _MAX_SIZE:
        raise ImageError(f"a PAX header has an impossible {key.decode()}: {_text(text[:40])}")
    return int(text)


def _time(text: bytes | None, fallback: bytes) -> int:
    if not text:
        seconds, nanoseconds = _number(fallback, "mtime"), 0
    else:
        match = _SECONDS.fullmatch(text)
        if not match:
            raise ImageError(f"a PAX header has an impossible mtime: {_text(text[:40])}")
        seconds = int(match[2])
        nanoseconds = int((match[3] or b"")[:9].ljust(9, b"0"))
        if match[1]:
            seconds, nanoseconds = -seconds, -nanoseconds
    if abs(seconds) > 1 << 34:
        raise ImageError(f"a tar header has an impossible mtime: {seconds}")
    return seconds * 1_000_000_000 + nanoseconds


def _check_sum(block: bytes) -> None:
    stated = _string(block[148:156].lstrip(b" \0")).rstrip(b" ")
    summed = block[:148] + b"        " + block[156:]
    if stated and not stated.strip(b"01234567"):
        if int(stated, 8) == sum(summed):
            return
        # Some old writers added the bytes up as signed numbers.
        if int(stated, 8) == sum(byte - 256 if byte > 127 else byte for byte in summed):
            return
    raise ImageError("this is not a tar: a header's checksum is wrong")


def _text(data: bytes) -> str:
    return repr(data.decode("utf-8", "backslashreplace"))
