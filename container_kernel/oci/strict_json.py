"""JSON that means one thing only.

Two programs that read one document differently are how an image is checked as one thing and run as
another. So whatever readers are known to disagree on is refused: a key given twice, keys that
differ from a known one only in case, numbers that are none, byte order marks, broken Unicode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from ..errors import ImageError

MAX_BYTES = 4 << 20
_MAX_DEPTH = 100
_MAX_DIGITS = 19

# Compiled when first used: a kernel's start waits for none of them.
_STRING = r'(?s)"(?:[^"\\]|\\.)*"'
_LONE_SURROGATE = "[\ud800-\udfff]"


def parse(data: bytes, what: str) -> dict[str, Any]:
    """The object in ``data``; ``what`` names the document in messages.

    Raises:
        ImageError: it is no object, too long, too deep, or ambiguous.
    """
    if len(data) > MAX_BYTES:
        raise ImageError(f"{what} is longer than {MAX_BYTES >> 20} MiB")

    def refuse(why: str) -> NoReturn:
        raise ImageError(f"{what} {why}")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(found)
        if len(fields) != len(found):
            refuse("has a key twice")
        return fields

    def integer(text: str) -> int:
        return int(text) if len(text) <= _MAX_DIGITS else refuse("has a number too large")

    def real(text: str) -> float:
        value = float(text)
        return value if abs(value) < 1e300 else refuse("has a number too large")

    try:
        text = data.decode("utf-8")
        if _depth(text) > _MAX_DEPTH:
            refuse("is nested too deeply")
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=real,
            parse_constant=lambda name: refuse(f"has {name} for a number"),
        )
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        refuse("is not a JSON object")
    if "\\" in text and re.search(_LONE_SURROGATE, json.dumps(value, ensure_ascii=False)):
        refuse("has text that is not Unicode")
    return value


def canonical(value: object) -> bytes:
    """The one way we write a document: sorted keys, no blanks, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refuse_lookalikes(fields: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse keys that other readers, which ignore case, would take for known ones.

    Raises:
        ImageError: for example ``Layers`` beside, or instead of, ``layers``.
    """
    names = {name.lower(): name for name in known}
    for field in fields:
        meant = names.get(field.lower())
        if meant is not None and meant != field:
            raise ImageError(f"{what} has {field!r}, which some programs read as {meant!r}")


def _depth(text: str) -> int:
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return 0
    deepest = depth = 0
    for sign in re.findall(r"[\[\]{}]", re.sub(_STRING, "", text)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
