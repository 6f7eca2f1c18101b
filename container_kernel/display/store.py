"""Store: what check, collect and du found, as text and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..record import asdict
from ..store.check import Finding
from ..store.plan import Plan, Thing
from ..store.usage import Usage
from . import amounts, markup
from .log import plain

_SHOWN = 40
_DIGEST = "sha256:"
_SHORT = 12


def finding_data(finding: Finding, repaired: str) -> dict[str, object]:
    """One finding, for programs."""
    more = {"weight": finding.weight, "repaired": repaired or None}
    return asdict(finding) | {"needed_by": list(finding.needed_by)} | more


def findings(found: Iterable[tuple[Finding, str]], *, is_full: bool) -> str:
    """What is wrong, one line each, with who needs it and what was done about it."""
    lines: list[str] = []
    found = list(found)
    for weight in ("damage", "leftover", "note"):
        of_weight = [(finding, done) for finding, done in found if finding.weight == weight]
        for finding, done in of_weight[:_SHOWN]:
            lines.append(_finding(finding))
            lines += [f"    repaired: {done}"] if done else []
            needed = ", ".join(plain(name) for name in finding.needed_by)
            lines += [f"    needed by: {needed}"] if needed and weight == "damage" else []
        if len(of_weight) > _SHOWN:
            lines.append(f"… and {len(of_weight) - _SHOWN} more ({weight})")
    depth = "" if is_full else " (names, sizes and documents; --full hashes everything again)"
    open_ = sum(1 for finding, done in found if finding.weight == "damage" and not done)
    lines.append(f"{open_ or 'no'} damage{depth}")
    return "\n".join(lines)


def _finding(finding: Finding) -> str:
    what = f": {plain(finding.what)}" if finding.what else ""
    return f"{finding.weight:<8}  {finding.damage:<16}  {_short(plain(finding.thing))}{what}"


def plan_data(plan: Plan, *, is_dry: bool) -> dict[str, object]:
    """What was collected, for programs."""
    return {
        "dry_run": is_dry,
        "freed_bytes": plan.freed,
        "total_bytes": plan.total,
        "in_use": plan.in_use,
        "removed": [asdict(victim) for victim in plan.victims],
        "kept": [asdict(thing) for thing in plan.kept],
    }


def plan(plan: Plan, *, is_dry: bool) -> str:
    """What was collected, and why."""
    verb = "would free" if is_dry else "freed"
    lines = list(_things(plan.victims, None if is_dry else _SHOWN))
    if plan.kept:
        lines += ["kept:", *_things(plan.kept, None if is_dry else _SHOWN)]
    lines.append(f"{verb} {amounts.size(plan.freed)} of {amounts.size(plan.total)}")
    if plan.in_use:
        lines.append(f"{plan.in_use} more are kept: running processes need them")
    return "\n".join(lines)


def _things(things: Sequence[Thing], most: int | None) -> Iterator[str]:
    if rows := [_victim(thing) for thing in things[:most]]:
        yield markup.columns(rows, "<<><<")
    if len(things) > len(rows):
        yield f"… and {len(things) - len(rows)} more"


def _victim(victim: Thing) -> tuple[str, ...]:
    size = amounts.size(victim.size)
    return victim.kind, _short(victim.name), size, plain(victim.what)[:50], victim.why


def usage_data(found: Usage) -> dict[str, object]:
    """A store in bytes, for programs."""
    images = [
        {
            "digest": str(image.digest),
            "names": list(image.names),
            "unique_bytes": image.own,
            "shared_bytes": image.shared,
        }
        for image in found.images
    ]
    return {
        "images": images,
        "named_bytes": found.named,
        "build_cache_bytes": found.cached,
        "unreferenced_bytes": found.unreferenced,
        "other_blobs_bytes": found.other_blobs,
        "downloads": found.downloads,
        "volumes": found.volumes,
        "records_bytes": found.records,
        "working_bytes": found.working,
        "set_aside_bytes": found.set_aside,
        "total_bytes": found.total,
        "opened_bundles": found.bundles,
    }


def usage(found: Usage) -> str:
    """A store in bytes."""
    rows = [("image", "unique", "shared", "names")]
    for image in found.images:
        own, shared = amounts.size(image.own), amounts.size(image.shared)
        names = plain(", ".join(image.names))
        rows.append((_short(str(image.digest)), own, shared, names))
    downloads, volumes = sum(found.downloads.values()), sum(found.volumes.values())
    sums = [
        ("images with a name or a notebook", amounts.size(found.named)),
        ("layers that only the build cache keeps", amounts.size(found.cached)),
        ("nothing refers to it", amounts.size(found.unreferenced)),
        ("downloads by digest", amounts.size(found.other_blobs)),
        (f"download caches ({', '.join(found.downloads) or 'none'})", amounts.size(downloads)),
        (f"volumes ({plain(', '.join(found.volumes)) or 'none'})", amounts.size(volumes)),
        ("journal, history, forecasts, what was packed", amounts.size(found.records)),
        ("index, leases, what is being made", amounts.size(found.working)),
        ("moved aside, or about to be removed", amounts.size(found.set_aside)),
        ("together", amounts.size(found.total)),
    ]
    if found.bundles:
        sums.append(("opened bundles, beside the store", amounts.size(sum(found.bundles.values()))))
    return f"{markup.columns(rows, '<>><')}\n\n{markup.columns(sums, '<>')}"


def _short(text: str) -> str:
    head, sep, digits = text.partition(_DIGEST)
    return f"{head}{sep}{digits[:_SHORT]}" if len(digits) == 64 else text
