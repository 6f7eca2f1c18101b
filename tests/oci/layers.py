"""Layers as tests need them: entries in a row, hostile ones too."""

from __future__ import annotations

import io
import tarfile

BLOCK = 512


def entry(
    name: str,
    data: bytes | None = None,
    *,
    link: str = "",
    kind: bytes | None = None,
    pax: dict[str, str] | None = None,
    **fields,
) -> bytes:
    """One entry. Its kind follows from what is given: a name with "/" at its end is a folder."""
    info = tarfile.TarInfo(name)
    info.type = kind or (tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE)
    info.mode = 0o755 if info.isdir() else 0o644
    info.linkname = link
    info.size = len(data or b"")
    info.mtime = 1_000_000_000
    info.pax_headers = pax or {}
    for key, value in fields.items():
        setattr(info, key, value)
    head = info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    return head + (data or b"") + bytes(-len(data or b"") % BLOCK)


def symlink(name: str, target: str) -> bytes:
    return entry(name, link=target, kind=tarfile.SYMTYPE)


def hard_link(name: str, target: str) -> bytes:
    return entry(name, link=target, kind=tarfile.LNKTYPE)


def layer(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(2 * BLOCK)


def raw(name: bytes, kind: bytes = b"0", size: bytes = b"0", body: bytes = b"", **fields) -> bytes:
    """A header whose fields are exactly these bytes, with a right checksum."""
    block = bytearray(BLOCK)
    places = {"mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "mtime": (136, 12)}
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for field, value in fields.items():
        start, _ = places[field]
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + body + bytes(-len(body) % BLOCK)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """A PAX header holding exactly these bytes."""
    body = b"".join(records)
    return raw(b"pax", kind, b"%o" % len(body), body)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    for _ in range(2):
        length = len(key) + len(value) + 3 + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)
