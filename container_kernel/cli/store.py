"""``store``: the health of the store, its garbage, its sizes."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..build import lock_roots
from ..display import store as shown
from ..errors import StoreError
from ..store.check import Finding, check
from ..store.collect import collect
from ..store.reach import Reach
from ..store.repair import repair
from ..store.store import Store
from ..store.usage import usage
from .arguments import Options
from .image import open_store
from .report import Report
from .streams import to_stderr

_ERASE = "\r\x1b[K"
_REDRAW_S = 0.1
_REPAIR = "hint: container-kernel store check --repair moves aside what is bad and mends the rest"
_NEXT = "hint: run the notebooks named above, or load those images again: that brings back the rest"


def check_store(options: Options, report: Report) -> int:
    """Say what is wrong, and mend it if asked to; exit code 4 while something is damaged."""
    store = open_store(report)
    found, done = _check(store, options.full, report), list[tuple[Finding, str]]()
    if options.repair and found:
        done = _repair(store, found, report)
        found = _check(store, options.full, report)
    pairs = [*done, *((finding, "") for finding in found)]
    is_damaged = any(finding.weight == "damage" for finding in found)
    data = {
        "ok": not is_damaged,
        "full": options.full,
        "findings": [shown.finding_data(finding, said) for finding, said in pairs],
    }
    report.result(data, shown.findings(pairs, is_full=options.full))
    if is_damaged:
        report.note(_NEXT if options.repair else _REPAIR)
    return StoreError.process_exit_code if is_damaged else 0


def _check(store: Store, full: bool, report: Report) -> list[Finding]:
    if not full:
        return check(store)
    from ..transfer.restore import examine_imported

    compare = examine_imported(store, Reach(store))
    return check(store, full=True, imported=compare, on_progress=_progress(report.width))


def _repair(store: Store, found: list[Finding], report: Report) -> list[tuple[Finding, str]]:
    from ..transfer.restore import restore

    done = repair(store, found)
    for chain in restore(store):
        report.note(f"layer {chain.short} is unpacked again from the blob it came in")
    return done


def collect_store(options: Options, report: Report) -> int:
    """Remove what nobody needs, or say what that would be."""
    store = open_store(report)
    plan = collect(
        store,
        max_bytes=options.max_bytes,
        older_than_s=options.older_than,
        locked=lock_roots.packages(store),
        dry_run=options.dry_run,
    )
    is_dry = options.dry_run
    report.result(shown.plan_data(plan, is_dry=is_dry), shown.plan(plan, is_dry=is_dry))
    return 0


def show_usage(_options: Options, report: Report) -> int:
    """Say whose bytes the store holds."""
    found = usage(open_store(report))
    report.result(shown.usage_data(found), shown.usage(found))
    return 0


def _progress(width: int | None) -> Callable[[int, int, str], None]:
    """A line on the terminal that says how far a long check is; nothing elsewhere."""
    shown_at = 0.0

    def on_progress(done: int, total: int, what: str) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if width is None or (done < total and now - shown_at < _REDRAW_S):
            return
        shown_at = now
        cells = 16 * done // max(total, 1)
        line = f"{'█' * cells}{'░' * (16 - cells)} {done}/{total}  {what}"[: width - 1]
        to_stderr(_ERASE + (line if done < total else ""))

    return on_progress
