"""Causes: why a step made other bytes the second time, as far as the bytes themselves tell.

Each rule looks at one difference and may know its kind; the first that does names it. The order is
from what is certain to what is likely.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from ..record import record

LIMIT_BYTES = 4 << 20
"""Files longer than this are compared by digest only."""


@record
class Window:
    """When the two layers were made, in seconds since 1970: first and last second of each."""

    before: tuple[int, int]
    after: tuple[int, int]


@record
class Case:
    """One differing file: its path in the image, what differs, and both contents, if short."""

    path: str
    aspects: frozenset[str]
    before: bytes | None
    after: bytes | None
    window: Window


def cause_of(case: Case) -> str | None:
    """The rule that explains ``case``; None when none does."""
    return next((name for name, rule in _RULES if rule(case)), None)


def _presence(case: Case) -> bool:
    return bool(case.aspects & {"added", "removed"}) and bool(_RANDOM_NAME.search(case.path))


def _only(*aspects: str) -> Callable[[Case], bool]:
    return lambda case: bool(case.aspects) and case.aspects <= set(aspects)


def _byte_code(case: Case) -> bool:
    return case.path.endswith(".pyc")


def _contents(case: Case) -> tuple[bytes, bytes] | None:
    if case.before is None or case.after is None or case.before == case.after:
        return None
    return case.before, case.after


def _compressed_time(case: Case) -> bool:
    """The header of gzip holds the time of its input (RFC 1952, 2.3), zip's entries have theirs."""
    found = _contents(case)
    if found is None:
        return False
    one, other = found
    if one[:2] == b"\x1f\x8b" == other[:2]:
        return one[:4] == other[:4] and one[8:] == other[8:]
    return one[:4] == b"PK\x03\x04" == other[:4] and len(one) == len(other)


def _order(case: Case) -> bool:
    found = _contents(case)
    return found is not None and sorted(found[0].splitlines()) == sorted(found[1].splitlines())


def _clock(case: Case) -> bool:
    found = _contents(case)
    if found is None:
        return False
    if _is_text(found[0]) and _is_text(found[1]):
        return _clock_in_text(*found)
    return _clock_in_binary(*found, case.window)


def _clock_in_text(one: bytes, other: bytes) -> bool:
    """What is left is the same once everything that reads as a time is taken out."""
    return _TIME.sub(b"@", one) == _TIME.sub(b"@", other)


def _clock_in_binary(one: bytes, other: bytes, window: Window) -> bool:
    """Numbers at the same place that are seconds of the two builds, in either byte order."""
    if len(one) != len(other):
        return False
    first = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    for start in range(max(first - 7, 0), first + 1):
        for form in ("<I", ">I"):
            width = struct.calcsize(form)
            if start + width <= len(one):
                (a,), (b,) = (struct.unpack_from(form, data, start) for data in (one, other))
                if _within(a, window.before) and _within(b, window.after):
                    return True
    return False


def _within(seconds: int, span: tuple[int, int]) -> bool:
    return span[0] <= seconds <= span[1]


def _path(case: Case) -> bool:
    found = _contents(case)
    return found is not None and _TEMPORARY.sub(b"@", found[0]) == _TEMPORARY.sub(b"@", found[1])


def _random(case: Case) -> bool:
    """Same shape, other letters or bytes: keys, ids, seeds, salts."""
    found = _contents(case)
    if found is None:
        return False
    one, other = found
    if not (_is_text(one) and _is_text(other)):
        return abs(len(one) - len(other)) * 10 <= max(len(one), len(other))
    return _RANDOM.sub(b"@", one) == _RANDOM.sub(b"@", other) or len(one) == len(other)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


_MONTHS = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_TIME = re.compile(
    rb"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?)?|\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?"
    rb"|(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?(?:"
    + _MONTHS
    + rb" +\d{1,2}|\d{1,2} +"
    + _MONTHS
    + rb")(?:,? \d{4})?|\b1[5-9]\d{8}(?:\d{3}|\d{6}|\d{9})?(?:\.\d+)?\b"
)
_RANDOM = re.compile(rb"[0-9A-Fa-f-]{6,}|[A-Za-z0-9+/=_-]{12,}|\d+")
_RANDOM_NAME = re.compile(r"[0-9a-f]{8,}|tmp[\w.]{4,}|[.-][A-Za-z0-9]{6,}$")
_TEMPORARY = re.compile(rb"(?:/tmp|/var/tmp|/run/cache)/[\w./+-]+")

_RULES: Sequence[tuple[str, Callable[[Case], bool]]] = (
    ("a temporary name", _presence),
    ("the umask or a program's own choice of permissions", _only("mode")),
    ("who wrote it", _only("owner")),
    ("a time set from the clock", _only("time")),
    ("Python's byte-code, whose bytes depend on what was imported before", _byte_code),
    ("the clock: a time inside an archive", _compressed_time),
    ("the clock", _clock),
    ("the order of a listing, or of parallel writers", _order),
    ("a temporary path", _path),
    ("random data", _random),
)


def closest_lines(before: bytes, after: bytes, limit: int = 12) -> list[str]:
    """The lines of two texts that differ, marked - and +; none where one is no text."""
    if not (_is_text(before) and _is_text(after)):
        return []
    old, new = (data.decode(errors="replace").splitlines() for data in (before, after))
    lines: list[str] = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=True).get_opcodes():
        if tag != "equal":
            lines += [f"- {line}" for line in old[i:j]] + [f"+ {line}" for line in new[k:m]]
        if len(lines) > limit:
            return [*lines[:limit], "…"]
    return lines
