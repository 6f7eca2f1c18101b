"""Contrast: what differs between two environments, as text and as a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import amounts, markup
from .log import plain
from .markup import Bundle

if TYPE_CHECKING:
    from ..build.environments import Comparison, Side
    from ..oci.contrast import Change, Seen

SHOWN = 40
"""How many files the text tells of; the card has ten times as many, folded."""
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_COLOURS = {"+": markup.GOOD, "-": markup.BAD, "~": markup.WARN}

_Row = tuple[str, str, str]
"""A sign, a name, what is to be said of it."""


def bundle(found: Comparison, *, with_data: bool = False) -> Bundle:
    """The comparison as ``text/plain`` and ``text/html``."""
    data: Bundle = {"text/plain": text(found), "text/html": _html(found)}
    if with_data:
        data["application/json"] = found.to_json()
    return data


def text(found: Comparison) -> str:
    """For people."""
    lines = [_head(found)]
    if found.is_same:
        lines.append("nothing differs")
    for title, rows in _parts(found):
        lines.append(title)
        lines += [f"  {sign} {name}  {about}".rstrip() for sign, name, about in rows[:SHOWN]]
        if len(rows) > SHOWN:
            lines.append(f"  … and {len(rows) - SHOWN} more; --json has all")
    return "\n".join(lines)


def unified(lines: Sequence[str]) -> Bundle:
    """A unified diff of one file."""
    shown = [plain(line) for line in lines] or ["no difference"]
    return {"text/plain": "\n".join(shown), "text/html": markup.pre("\n".join(map(_line, shown)))}


def _line(line: str) -> str:
    colour = _COLOURS.get(line[:1].replace("~", ""))
    inner = markup.text(line)
    return f'<span style="color:{colour}">{inner}</span>' if colour else inner


def _head(found: Comparison) -> str:
    return f"from {_side(found.before)} to {_side(found.after)}"


def _side(side: Side) -> str:
    scratch = " and what cells wrote" if side.live is not None else ""
    return f"{plain(side.title)} ({side.image.digest.short}{scratch})"


def _parts(found: Comparison) -> list[tuple[str, list[_Row]]]:
    """What differs, by kind; a kind without anything is left out."""
    packages = [_valued(f"{name} ({kind})", *both) for (kind, name), both in found.packages.items()]
    settings = [_valued(name, *both) for name, both in found.settings.items()]
    files = [_file(change) for change in found.files]
    parts = (("packages", packages), ("settings", settings), ("files", files))
    return [(f"{title}: {_counts(rows)}", rows) for title, rows in parts if rows]


def _counts(rows: Sequence[_Row]) -> str:
    signs = [sign for sign, _, _ in rows]
    counted = ((word, signs.count(sign)) for word, sign in _SIGNS.items())
    return ", ".join(f"{count} {word}" for word, count in counted if count)


def _valued(name: str, before: str | None, after: str | None) -> _Row:
    if before is None or after is None:
        return "+" if before is None else "-", plain(name), plain(before or after or "")
    return "~", plain(name), f"{plain(before)} → {plain(after)}"


def _file(change: Change) -> _Row:
    seen = change.after or change.before
    assert seen is not None
    slash = "/" if seen.kind == "folder" else ""
    name = plain(change.path) + slash
    if change.before is None or change.after is None:
        return _SIGNS[change.kind], name, _about(seen)
    aspects = [*_aspects(change.before, change.after)]
    if change.is_content:
        sizes = [amounts.size(one.size_bytes) for one in (change.before, change.after)]
        aspects.insert(0, " → ".join(sizes) if sizes[0] != sizes[1] else f"{sizes[0]}, other bytes")
    return "~", name, ", ".join(aspects)


def _about(seen: Seen) -> str:
    if seen.kind == "link":
        return f"→ {plain(seen.link)}"
    size = amounts.size(seen.size_bytes)
    if seen.kind == "folder":
        return f"{seen.files} file{'' if seen.files == 1 else 's'}, {size}"
    return f"{size}, {seen.mode:04o} {seen.owner}" if seen.kind == "file" else seen.kind


def _aspects(before: Seen, after: Seen) -> list[str]:
    pairs = (
        ("", before.kind, after.kind),
        ("mode ", f"{before.mode:04o}", f"{after.mode:04o}"),
        ("owner ", before.owner, after.owner),
        ("to ", plain(before.link), plain(after.link)),
    )
    return [f"{name}{old or 'none'} → {new or 'none'}" for name, old, new in pairs if old != new]


def _html(found: Comparison) -> str:
    parts = [f'<div style="padding:.2em 0">{markup.text(_head(found))}</div>']
    if found.is_same:
        parts.append(markup.muted("nothing differs"))
    for title, rows in _parts(found):
        is_open = " open" if len(rows) <= SHOWN else ""
        shown = [_html_row(row) for row in rows[: SHOWN * 10]]
        more = len(rows) - len(shown)
        rest = [markup.muted(f"… and {more} more")] if more > 0 else []
        parts.append(
            f"<details{is_open}><summary>{markup.text(title)}</summary>"
            f"{markup.pre(chr(10).join([*shown, *rest]))}</details>"
        )
    return f'<div style="font-size:{markup.SIZE};line-height:1.5">{"".join(parts)}</div>'


def _html_row(row: _Row) -> str:
    sign, name, about = row
    mark = f'<span style="color:{_COLOURS[sign]}">{sign}</span>'
    return f"{mark} {markup.text(name)}  {markup.muted(markup.text(about))}"
