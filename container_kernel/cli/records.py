"""``verify``, ``lock`` and ``why``: what a notebook's images are made of, and whether they are
made again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..build import lock as locks
from ..build import lock_roots
from ..display import reasons, verdict
from ..errors import LockBroken
from ..kernel import records
from ..kernel.verifying import verify as build_again
from . import notebook as notebooks
from .arguments import Options
from .build import bench
from .report import Report


def verify(options: Options, report: Report) -> int:
    """Build the notebook twice; exit code 1 when the second time gave other bytes."""
    path = notebooks.path_of(options.notebook)
    notebooks.document(path)
    is_locked = locks.read(path) is not None
    with bench(path.parent, report, notebook=path, is_locked=is_locked) as built:
        built.build()
        found = build_again(
            built.workbench, on_event=built.on_event, cancel=built.cancel, note=report.log
        )
    data = found.to_json()
    report.result(data, verdict.text(data))
    return 0 if found.is_reproducible else 1


def lock(options: Options, report: Report) -> int:
    """Write the lock of a notebook, or put it into the notebook, or take it out again."""
    path = notebooks.path_of(options.notebook)
    document = notebooks.document(path)
    if options.extract:
        return _extract(path, document, report)
    with bench(path.parent, report, notebook=path) as built:
        built.build()
        made = built.workbench.lock(on_event=built.on_event, cancel=built.cancel)
        lock_roots.note(built.workbench.store, path, made)
    if options.embed:
        document["metadata"].setdefault(locks.KEY, {})["lock"] = made.to_json()
        _write(path, document)
        text = f"the lock is in the metadata of {path.name}"
    else:
        text = records.write(made, path)
    report.result({"status": "ok", "lock": made.to_json()}, text)
    return 0


def _extract(path: Path, document: dict[str, Any], report: Report) -> int:
    """Write the lock that is in the notebook's metadata beside it, and take it out there."""
    ours = document["metadata"].get(locks.KEY, {})
    if "lock" not in ours:
        raise LockBroken(f"{path.name} has no lock in its metadata")
    made = locks.Lock.from_json(ours.pop("lock"), f"the lock in {path.name}")
    if not ours:
        del document["metadata"][locks.KEY]
    text = records.write(made, path)
    _write(path, document)
    report.result({"status": "ok", "lock": made.to_json()}, text)
    return 0


def _write(path: Path, document: dict[str, Any]) -> None:
    """As Jupyter writes notebooks, so that nothing else in the file changes."""
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)
    records.write_whole(path, text + "\n")


def why(options: Options, report: Report) -> int:
    """Say why each step was cached or had to run, the last time."""
    path = notebooks.path_of(options.notebook)
    notebooks.document(path)
    with bench(path.parent, report, notebook=path) as built:
        entries = records.explained(built.workbench, options.cell)
    nothing = f"nothing is known of the steps of {path.name}: build it first, if it has any"
    report.result({"steps": entries}, reasons.text(entries) or nothing)
    return 0
