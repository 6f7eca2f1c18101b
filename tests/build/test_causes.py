"""Why bytes differ, told from the bytes."""

import gzip
import struct

import pytest

from container_kernel.build.causes import Case, Window, cause_of, closest_lines

WINDOW = Window((1_700_000_000, 1_700_000_010), (1_700_000_020, 1_700_000_030))


def case(path, before, after, aspects=("content",)):
    return Case(path, frozenset(aspects), before, after, WINDOW)


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        (
            b"made Wed Nov 25 21:00:01 UTC 2026\n",
            b"made Thu Nov 26 01:02:03 UTC 2026\n",
            "the clock",
        ),
        (b'{"at": 1700000001}', b'{"at": 1700000021}', "the clock"),
        (b"2026-01-02T03:04:05Z", b"2027-01-02T03:04:06Z", "the clock"),
        (
            b"\0bin" + struct.pack("<I", 1_700_000_001),
            b"\0bin" + struct.pack("<I", 1_700_000_021),
            "the clock",
        ),
        (
            b"\0bin" + struct.pack(">Q", 1_700_000_009),
            b"\0bin" + struct.pack(">Q", 1_700_000_030),
            "the clock",
        ),
        (b"b\na\n", b"a\nb\n", "the order of a listing, or of parallel writers"),
        (b"in /tmp/abc.1/x", b"in /tmp/zyx.2/x", "a temporary path"),
        (b"id 0123456789abcdef", b"id fedcba9876543210", "random data"),
        (bytes(range(200)), bytes(range(200))[::-1], "random data"),
        (
            gzip.compress(b"x", mtime=1),
            gzip.compress(b"x", mtime=2),
            "the clock: a time inside an archive",
        ),
        (b"one thing", b"quite another", None),
    ],
)
def test_the_bytes_tell(before, after, cause):
    assert cause_of(case("/f", before, after)) == cause


@pytest.mark.parametrize(
    ("aspects", "cause"),
    [
        ({"mode"}, "the umask or a program's own choice of permissions"),
        ({"owner"}, "who wrote it"),
        ({"time"}, "a time set from the clock"),
    ],
)
def test_what_is_no_content_tells_too(aspects, cause):
    assert cause_of(case("/f", b"x", b"x", aspects)) == cause


def test_a_seed_is_not_taken_for_a_clock():
    assert cause_of(case("/f", b"\0" + b"\xff" * 9, b"\0" + b"\xfe" * 9)) == "random data"


def test_bytes_are_not_shown_as_lines():
    assert closest_lines(b"\xff\xfe", b"\xfe\xff") == []


def test_many_lines_are_cut():
    shown = closest_lines(b"\n".join(b"a%d" % n for n in range(99)), b"")
    assert len(shown) == 13
    assert shown[-1] == "…"
