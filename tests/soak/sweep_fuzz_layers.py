"""Hostile layers, unpacked in the box: refused or kept inside, and what is kept comes back.

A case is two layers of random entries, some of them malformed, one on top of the other. Nothing
outside the target changes; Python's own reader finds the same files in a layer that is taken, which
can be encoded, unpacked and encoded again with the same digest.
"""

from __future__ import annotations

import io
import os
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from container_kernel.errors import ImageError
from container_kernel.oci.changeset import encode
from container_kernel.oci.idmap import IdMap
from container_kernel.transfer.box import unpack_boxed

CASES, SAMPLE = 20_000, 6
SLOWEST_S = 30.0
IDS = IdMap.single()
NAMES = [
    *("a", "b", "a/b", "a/b/c", "link", "link/x", "link/../x", "dir/", "dir/f", "é", "x" * 120),
    *("..", "../canary", "../../canary", "/canary", "/etc/passwd", "./a", "a//b", "a/./b", ".", ""),
    *(".wh.a", ".wh.", ".wh..", ".wh..wh..opq", "dir/.wh..wh..opq", "link/.wh.canary", "a/.wh.b"),
    *("a/../../canary", "dir/../..", "x" * 300, "a" + "/b" * 200, "a\nb", "a\\b", "\x01"),
]
TARGETS = [
    "a",
    "/canary",
    "../canary",
    "../../../../canary",
    "/",
    ".",
    "",
    "link",
    "x" * 200,
    "dir",
]
KINDS = [
    *(tarfile.REGTYPE,) * 5,
    *(tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE) * 2,
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"9"),
]
ATTRIBUTES = [
    *("user.x", "user.overlay.opaque", "trusted.overlay.redirect", "security.capability"),
    *("system.posix_acl_access", "security.selinux", ""),
]


def layer(chance: random.Random) -> bytes:
    """A tar of random entries; one in three has bytes flipped."""
    out = io.BytesIO()
    form = chance.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for _ in range(chance.randrange(1, 9)):
            try:
                tar.addfile(*entry(chance))
            except (ValueError, UnicodeError):
                pass  # this form cannot say it
    data = bytearray(out.getvalue())
    if not chance.randrange(3):
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(min(len(data), 4096))] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data))] if not chance.randrange(9) else data)


def entry(chance: random.Random) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(chance.choice(NAMES))
    info.type = chance.choice(KINDS)
    info.linkname = chance.choice(TARGETS)
    info.mode = chance.choice([0o644, 0o755, 0o4755, 0o2755, 0o1777, 0, 0o7777])
    info.uid = info.gid = chance.choice([0, 0, 1000, 65535, 1 << 31, 1 << 40])
    info.mtime = chance.choice([0, 1, 1.5, 1 << 33, -1])
    info.devmajor, info.devminor = chance.choice([(0, 0), (1, 3), (8, 0)])
    if not chance.randrange(3):
        info.pax_headers = {f"SCHILY.xattr.{chance.choice(ATTRIBUTES)}": chance.choice(["y", "\0"])}
    content = os.urandom(chance.choice([0, 1, 511, 512, 513, 9000]))
    info.size = len(content) if info.type in (tarfile.REGTYPE, tarfile.CONTTYPE) else 0
    return info, io.BytesIO(content)


def unpack(data: bytes, target: Path, parents: tuple[Path, ...] = ()) -> bool:
    """True when it was taken; in time, either way."""
    target.mkdir()
    start = time.monotonic()
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        try:
            unpack_boxed(file.fileno(), target, idmap=IDS, userxattr=True, parents=parents)
        except ImageError:
            return False
        finally:
            assert time.monotonic() - start < SLOWEST_S, "too slow"
    return True


def compare_with_tarfile(data: bytes, tree: Path) -> None:
    """Python's own reader finds the same files in it, with the same bytes."""
    seen: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = os.path.normpath("/" + member.name.lstrip("/"))
            if member.isreg():
                seen[name] = tar.extractfile(member).read()
            elif member.islnk():
                seen[name] = seen.get(os.path.normpath("/" + member.linkname.lstrip("/")), b"")
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = f"/{path.relative_to(tree)}"
            assert path.read_bytes() == seen.get(name), f"{name!r} is something else to tarfile"


def encoded(tree: Path) -> bytes:
    out = io.BytesIO()
    encode(tree, out.write, idmap=IDS, userxattr=True)
    return out.getvalue()


def state(path: Path) -> tuple[bytes, int, int, float]:
    found = path.lstat()
    return path.read_bytes(), found.st_nlink, found.st_mode, found.st_mtime


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    def case(_number: int, chance: random.Random) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-layers-") as name:
            folder = Path(name)
            canary = folder / "canary"
            canary.write_text("alive")
            before = state(canary)
            first, tar = folder / "first", layer(chance)
            parents = (first,) if unpack(tar, first) else ()
            if parents:
                compare_with_tarfile(tar, first)
            took = unpack(layer(chance), folder / "second", parents)
            assert state(canary) == before, "the canary was touched"
            kept = sorted(path.name for path in folder.iterdir())
            assert kept == ["canary", "first", "second"]
            if took:
                once = encoded(folder / "second")
                assert unpack(once, folder / "again"), "our own layer was refused"
                assert encoded(folder / "again") == once, "it came back as something else"

    yield case
