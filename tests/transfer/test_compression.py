"""Decompression: what layers may be packed with, and where it stops."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from container_kernel.errors import ImageError
from container_kernel.oci.digest import Digest
from container_kernel.transfer.compression import Caps, Decompressed

zstandard = pytest.importorskip("zstandard")
TEXT = b"".join(b"%d\n" % number for number in range(200_000))
SKIPPABLE = b"\x50\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100)


def read_all(data: bytes, **caps) -> Decompressed:
    stream = Decompressed(io.BytesIO(data).read, Caps(**caps))
    drain(stream)
    return stream


def drain(stream: Decompressed) -> None:
    while stream.read(1 << 16):
        pass


@pytest.mark.parametrize(
    ("data", "compression"),
    [
        (TEXT, "none"),
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]), "gzip"),
        (zstandard.compress(TEXT), "zstd"),
        (zstandard.compress(TEXT[:1000]) + zstandard.compress(TEXT[1000:]), "zstd"),
        (SKIPPABLE + zstandard.compress(TEXT) + SKIPPABLE, "zstd"),
    ],
    ids=["plain", "gzip", "gzip members", "zstd", "zstd frames", "zstd skippable frames"],
)
def test_plain_bytes_come_out(data, compression):
    stream = read_all(data)
    assert (stream.compression, stream.size) == (compression, len(TEXT))
    assert stream.digest == Digest.of(TEXT)


@pytest.mark.parametrize("data", [b"", b"x", gzip.compress(b""), zstandard.compress(b"")])
def test_nothing_may_come_out(data):
    assert read_all(data).size == len(data) if len(data) < 2 else read_all(data).size == 0


@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_other_formats_are_refused_by_name(pack, name):
    with pytest.raises(ImageError, match=name):
        read_all(pack(TEXT))


GZIPPED = gzip.compress(TEXT)
ZSTD = zstandard.compress(TEXT)
CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)


@pytest.mark.parametrize(
    "data",
    [
        GZIPPED[:-1],
        GZIPPED[: len(GZIPPED) // 2],
        GZIPPED[:12],
        GZIPPED + b"garbage",
        GZIPPED + bytes(512),
        GZIPPED[:-8] + bytes(4) + GZIPPED[-4:],
        GZIPPED[:-4] + bytes(4),
        CHECKED[:40] + b"xxxx" + CHECKED[44:],
        ZSTD + b"garbage!",
    ],
)
def test_damage_is_refused(data):
    with pytest.raises(ImageError, match=r"damaged|cut off"):
        read_all(data)


def zeros_gzip(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("kind", ["gzip", "zstd", "gzip in many members"])
def test_a_bomb_stops_at_its_cap_in_bounded_memory(kind):
    if kind == "gzip":
        bomb = zeros_gzip(256 << 20)
    elif kind == "zstd":
        bomb = zstandard.compress(bytes(256 << 20))
    else:
        bomb = zeros_gzip(4 << 20) * 64
    stream = Decompressed(io.BytesIO(bomb).read, Caps(floor_bytes=32 << 20, ratio=100))
    tracemalloc.start()
    with pytest.raises(ImageError, match="bomb"):
        drain(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stream.size <= 66 << 20
    assert peak < 72 << 20


def test_there_is_a_cap_in_all():
    with pytest.raises(ImageError, match="more than 1000 bytes"):
        read_all(TEXT, total_bytes=1000)


def test_a_huge_zstd_window_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(TEXT) + packer.flush()
    with pytest.raises(ImageError, match="memory"):
        read_all(data)


def test_cut_off_zstd_is_noticed():
    for cut in (1, 4, len(ZSTD) // 2):
        with pytest.raises(ImageError, match="cut off"):
            read_all(ZSTD[:-cut])


def verdict(data: bytes, *, fast: bool) -> str:
    stream = Decompressed(io.BytesIO(data).read, fast=fast)
    try:
        drain(stream)
    except ImageError:
        return "refused"
    return str(stream.digest)


def mutants(chance: random.Random) -> Iterator[bytes]:
    for size in (0, 1, 70_000, 1 << 20, (2 << 20) - 1):
        plain = (chance.randbytes(999) * (size // 999 + 1))[:size]
        for packed in (gzip.compress(plain, level) for level in (0, 6)):
            place = chance.randrange(len(packed))
            flipped = bytes([packed[place] ^ 1 << chance.randrange(8)])
            yield from (packed, packed * 2, packed[:place], packed + b"x", packed[:-8] + bytes(8))
            yield packed[:place] + flipped + packed[place + 1 :]


def test_the_fast_reader_of_gzip_gives_the_verdict_of_zlib():
    """Two readers that differ would see two layers in one blob."""
    pytest.importorskip("isal")
    for data in mutants(random.Random(5)):
        assert verdict(data, fast=True) == verdict(data, fast=False)
