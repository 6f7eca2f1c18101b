"""Failures: what a failed step has left behind, and how to look at it."""

from __future__ import annotations

from collections.abc import Sequence

from . import markup
from .log import plain
from .markup import Bundle

LOOK = "look inside: %shell --failed ls -l · run it again: %retry"


def bundle(title: str, newest: Sequence[str], most: int) -> Bundle:
    """The step and the files that it wrote last."""
    named = plain(title.replace("\n", " "))
    rest = "…" if len(newest) > most else ""
    files = [plain(path.replace("\n", "\\n")) for path in newest[:most]]
    what = "what it wrote last, the newest first:" if files else "it had written nothing."
    head, tail = f"{named} failed; {what}", [*files, *([rest] if rest else [])]
    return {
        "text/plain": "\n".join([head, *(f"    {line}" for line in tail), LOOK]),
        "text/html": (
            f'<div style="font-size:{markup.SIZE};line-height:1.6">{markup.text(head)}'
            f"{markup.pre(markup.text(chr(10).join(tail))) if tail else ''}"
            f"<div>{markup.muted(markup.text(LOOK))}</div></div>"
        ),
    }
