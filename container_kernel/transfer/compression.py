"""Decompression that stops: what a layer's bytes become, in bounded memory and amount.

A few kilobytes can stand for gigabytes. The cap is on the way out, as a ratio once there is more
than a floor, and in all; formats are told by their first bytes, never by what somebody declared.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from ..errors import HostError, ImageError
from ..oci.digest import Digest
from ..record import record

CHUNK_BYTES = 1 << 20
_ZSTD_WINDOW_BYTES = 128 << 20
_FEED_BYTES = 64 << 10
# A zstd frame can say 128 KiB of one byte in four bytes, and its reader gives all at once.
_ZSTD_FEED_BYTES = 1 << 10

NONE, GZIP, ZSTD = "none", "gzip", "zstd"
_MAGIC = {
    b"\x1f\x8b": GZIP,
    b"\x28\xb5\x2f\xfd": ZSTD,
    **{bytes([0x50 + low]) + b"\x2a\x4d\x18": ZSTD for low in range(16)},  # skippable frames
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
}

Read = Callable[[int], bytes]


@record
class Caps:
    """How much may come out of a compressed stream: ``ratio`` counts above ``floor_bytes``."""

    floor_bytes: int = 1 << 30
    ratio: int = 200
    total_bytes: int = 1 << 40


def detect(head: bytes) -> str:
    """The compression of a stream that begins with ``head``.

    Raises:
        ImageError: a format that image layers may not have.
    """
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            if name not in (GZIP, ZSTD):
                raise ImageError(f"it is compressed with {name}; layers are gzip, zstd or plain")
            return name
    return NONE


class Decompressed:
    """The plain bytes of a stream; ``digest`` is theirs once all were read.

    Raises ``ImageError`` from ``read`` when the stream is damaged, cut off, followed by something
    else, or larger than ``caps`` allow. In a box it may be ``fast``, with a reader that has been
    attacked less than zlib.
    """

    def __init__(self, read: Read, caps: Caps | None = None, *, fast: bool = False) -> None:
        self._caps = caps or Caps()
        self._fed = 0
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._read = read
        head = self._feed(CHUNK_BYTES)
        while 0 < len(head) < 8 and (more := self._feed(CHUNK_BYTES)):
            head += more
        self._head = head
        self.compression = detect(head)
        readers = _FAST_READERS if fast else _READERS
        self._chunks = readers[self.compression](self._next_fed)
        self._buffer = b""
        self._start = 0

    @property
    def digest(self) -> Digest:
        """The digest of what was read so far."""
        return Digest("sha256:" + self._sha256.hexdigest())

    @property
    def size(self) -> int:
        """How many bytes have come out so far."""
        return self._size

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        if self._start == len(self._buffer):
            self._buffer, self._start = next(self._chunks, b""), 0
            self._account(self._buffer)
        data = self._buffer[self._start : self._start + size]
        self._start += len(data)
        return data

    def _account(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._size += len(chunk)
        caps = self._caps
        if self._size > caps.total_bytes:
            raise ImageError(f"it unpacks to more than {caps.total_bytes} bytes")
        if self._size > caps.floor_bytes and self._size > caps.ratio * self._fed:
            raise ImageError(
                f"it unpacks to more than {caps.ratio} times its size and "
                f"{caps.floor_bytes} bytes: refused as a decompression bomb"
            )

    def _feed(self, size: int) -> bytes:
        data = self._read(size)
        self._fed += len(data)
        return data

    def _next_fed(self) -> bytes:
        head, self._head = self._head[:_FEED_BYTES], self._head[_FEED_BYTES:]
        return head or self._feed(_FEED_BYTES)


def _plain(feed: Callable[[], bytes]) -> Iterator[bytes]:
    while chunk := feed():
        yield chunk


def _gunzip(feed: Callable[[], bytes]) -> Iterator[bytes]:
    return _read_gzip(feed, zlib.decompressobj, zlib.error)


def _gunzip_fast(feed: Callable[[], bytes]) -> Iterator[bytes]:
    """ISA-L, in half the time. Not a generator itself, as below."""
    try:
        from isal import isal_zlib
    except ImportError:
        return _gunzip(feed)
    return _read_gzip(feed, isal_zlib.decompressobj, isal_zlib.error)  # type: ignore[arg-type]


def _read_gzip(
    feed: Callable[[], bytes], start: Callable[..., _Member], errors: type[Exception]
) -> Iterator[bytes]:
    pending = feed()
    while pending:
        member = start(wbits=31)
        while not member.eof:
            if not pending:
                raise ImageError("its gzip stream is cut off")
            try:
                yield from _nonempty(member.decompress(pending, CHUNK_BYTES))
            except errors as error:
                raise ImageError(f"its gzip stream is damaged: {error}") from error
            pending = member.unconsumed_tail or (b"" if member.eof else feed())
        pending = member.unused_data or feed()


def _unzstd(feed: Callable[[], bytes]) -> Iterator[bytes]:
    """Not a generator itself: the import must happen before the box closes its doors."""
    try:
        import zstandard
    except ImportError:
        raise HostError(
            "it is compressed with zstd, which this Python cannot read",
            hint="install the zstandard package beside container-kernel",
        ) from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    return _read_zstd(feed, lambda: decompressor.decompressobj(), zstandard.ZstdError)


def _read_zstd(
    feed: Callable[[], bytes], start: Callable[[], _Frame], errors: type[Exception]
) -> Iterator[bytes]:
    """Frame by frame, since only a frame's own reader tells whether it came to its end."""
    pending = feed()
    while pending:
        frame = start()
        while not frame.eof:
            if not pending:
                raise ImageError("its zstd stream is cut off")
            piece, pending = pending[:_ZSTD_FEED_BYTES], pending[_ZSTD_FEED_BYTES:]
            try:
                yield from _nonempty(frame.decompress(piece))
            except errors as error:
                raise ImageError(
                    f"its zstd stream is damaged or asks for too much memory: {error}"
                ) from error
            pending = frame.unused_data + pending if frame.eof else pending or feed()
        pending = pending or feed()


def _nonempty(data: bytes) -> Iterator[bytes]:
    if data:
        yield data


class _Member(Protocol):
    """Reads one gzip member."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Frame(Protocol):
    """Reads one zstd frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


_READERS = {NONE: _plain, GZIP: _gunzip, ZSTD: _unzstd}
_FAST_READERS = _READERS | {GZIP: _gunzip_fast}
