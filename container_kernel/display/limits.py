"""Limits: what a container may use, by what that is held, and how much is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..record import fields
from . import amounts, markup
from .markup import Bundle

if TYPE_CHECKING:
    from ..runtime.limits import Limits

_NAMES = {
    "memory_bytes": "memory",
    "swap_bytes": "swap",
    "cpus": "cpus",
    "cpuset": "cpuset",
    "pids": "pids",
    "io_bps": "io",
    "io_weight": "io-weight",
    "open_files": "files",
    "shm_bytes": "shm",
    "scratch_bytes": "scratch",
    "timeout_s": "timeout",
}
_NONE = "no limit"


def bundle(
    limits: Limits,
    how: Mapping[str, str],
    used: Mapping[str, float],
    *,
    with_data: bool = False,
) -> Bundle:
    """The table of ``%limits``. ``how`` and ``used`` are by field."""
    rows = [
        (name, value(field, getattr(limits, field)), _used(field, used), _by(field, limits, how))
        for field, name in _NAMES.items()
    ]
    head = ("limit", "value", "used", "held by")
    shown: Bundle = {
        "text/plain": markup.columns([head, *rows], "<>><"),
        "text/html": markup.table(
            zip(head, ("left", "right", "right", "left"), strict=True),
            ((markup.code(n), markup.text(v), markup.text(u), markup.muted(markup.text(b)))
             for n, v, u, b in rows),
        ),
    }  # fmt: skip
    if with_data:
        shown["application/json"] = data(limits, how, used)
    return shown


def data(limits: Limits, how: Mapping[str, str], used: Mapping[str, float]) -> dict[str, Any]:
    """The same for programs."""
    return {
        _NAMES[field]: {
            "limit": _plain(getattr(limits, field)),
            "used": used.get(field),
            "held_by": _by(field, limits, how),
        }
        for field in fields(type(limits))
        if field in _NAMES
    }


def _plain(found: Any) -> Any:
    return list(found) if isinstance(found, tuple) else found


def value(field: str, found: Any) -> str:
    """A limit as people read it, in the units in which it is given."""
    if found is None or found == ():
        return _NONE
    if field == "swap_bytes" and not found:
        return "none"
    if field == "io_bps":
        return f"{_binary(found)}/s"
    if field.endswith("_bytes"):
        return _binary(found)
    if field == "timeout_s":
        return amounts.seconds(found)
    return ",".join(map(str, found)) if isinstance(found, tuple) else str(found)


def _binary(count: float) -> str:
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1024 or unit == "TiB":
            break
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"


def _used(field: str, used: Mapping[str, float]) -> str:
    found = used.get(field)
    if found is None:
        return ""
    return _binary(found) if field.endswith("_bytes") else str(found)


def _by(field: str, limits: Limits, how: Mapping[str, str]) -> str:
    found = getattr(limits, field)
    return "" if found is None or found == () else how[field]
