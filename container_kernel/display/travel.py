"""Travel: how far a push or pull is, as it goes, and what it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import amounts, markup

if TYPE_CHECKING:
    from ..transfer.pull import Pulled
    from ..transfer.push import Part, Pushed
    from ..transfer.traffic import Moved

_INTERVAL_S = 0.2


class TrafficLine:
    """One line that is drawn over itself; where nothing can be drawn over, one per blob."""

    def __init__(self, write: Callable[[str], None], *, is_live: bool = True) -> None:
        self._write = write
        self._is_live = is_live
        self._next = 0.0
        self._last = ""

    def on_traffic(self, moved: Moved) -> None:
        """Show it, if it is time for that."""
        is_over = moved.blobs >= moved.of_blobs and moved.finished is None
        if not self._is_live:
            if moved.finished is not None:
                self._write(f"{_line(moved)}\n")
        elif is_over:
            self._write(f"\r{_line(moved)}\n")
        elif (now := time.monotonic()) >= self._next:
            self._next = now + _INTERVAL_S
            self._write(f"\r{_line(moved)}")


def _line(moved: Moved) -> str:
    blobs = f"{moved.verb}: {moved.blobs} of {moved.of_blobs} blobs"
    if not moved.of_bytes:
        return blobs
    return f"{blobs}, {amounts.size(moved.bytes)} of {amounts.size(moved.of_bytes)}"


def pulled_text(name: str, pulled: Pulled, *, dry_run: bool) -> str:
    """What a pull did, in a line or two."""
    layers = f"{len(pulled.fetched)} of {len(pulled.fetched) + len(pulled.present)} layers"
    did = "would fetch" if dry_run else "fetched"
    lines = [
        f"{name} is {pulled.digest}",
        f"{did} {layers}, {amounts.size(pulled.fetched_bytes)}; the others were here",
    ]
    return "\n".join([*lines, *_about(pulled.referrers)])


def pulled_data(name: str, pulled: Pulled, *, dry_run: bool) -> dict[str, object]:
    """The same for programs."""
    return {
        "name": name,
        "digest": str(pulled.digest),
        "fetched": [{"digest": str(one.digest), "size": one.size} for one in pulled.fetched],
        "present": [{"digest": str(one.digest), "size": one.size} for one in pulled.present],
        "fetched_bytes": pulled.fetched_bytes,
        "referrers": pulled.referrers,
        "dry_run": dry_run,
    }


def pushed_text(name: str, pushed: Pushed, *, dry_run: bool) -> str:
    """What a push did, or would do, blob by blob."""
    rows = [(one.what, one.digest.short, _size(one), _fate(one, dry_run)) for one in pushed.blobs]
    table = markup.columns([("blob", "digest", "size", ""), *rows], "<<><")
    sent = amounts.size(pushed.sent_bytes)
    if pushed.digest is None:
        is_exact = all(one.is_packed for one in pushed.blobs)
        return f"{table}\nwould send {'' if is_exact else 'at most '}{sent}"
    return "\n".join([table, f"{name} is {pushed.digest}, sent {sent}", *_about(pushed.referrers)])


def pushed_data(name: str, pushed: Pushed, *, dry_run: bool) -> dict[str, object]:
    """The same for programs."""
    return {
        "name": name,
        "digest": str(pushed.digest) if pushed.digest else None,
        "image_id": str(pushed.image_id),
        "blobs": [
            {"digest": str(one.digest), "size": one.size, "fate": one.fate, "packed": one.is_packed}
            for one in pushed.blobs
        ],
        "sent_bytes": pushed.sent_bytes,
        "referrers": pushed.referrers,
        "dry_run": dry_run,
    }


def _size(part: Part) -> str:
    return amounts.size(part.size) + ("" if part.is_packed else " unpacked")


def _fate(part: Part, dry_run: bool) -> str:
    if not dry_run:
        return part.fate
    return {"sent": "to be sent", "mounted": "to be mounted"}.get(part.fate, part.fate)


def _about(count: int) -> list[str]:
    return [f"with {count} artifacts about it"] if count else []
