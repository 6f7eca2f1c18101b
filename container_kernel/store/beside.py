"""Beside: the small things that a store keeps next to layers and blobs, and when each may go.

Losing one loses no layer. It goes when what it is about has been gone, or it has not been written,
for `KEPT_S`; sooner if a lower age is asked for, but not before `LEAST_S`: somebody may be writing.

    journal/<cache key>.json          what layers were made of: for locks, and for ``%why``
    packed/<diff_id>.<compression>    what a layer is when it travels
    packed/at/<registry>/<blob>       which repository has a blob
    history/<notebook>.json           how the steps of a notebook were decided last
    forecasts/<notebook>.json         what the next kernel of a notebook starts first
    locks/<notebook>.json             which packages its lock names: those are kept

Whoever was killed while he wrote one left a draft, whose name begins with a dot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..oci.digest import Digest
from .places import LOCKS
from .reach import Reach

KEPT_S = 90 * 86400.0
LEAST_S = 86400.0


def without_subject(home: Path, reach: Reach) -> Iterator[tuple[Path, float, str]]:
    """What may go in the store at ``home``: the file, after how many seconds unwritten, and why."""
    for rule in (_journal, _packed, _history, _forecasts, _locks):
        yield from rule(home, reach)
    for folder in ("journal", "packed", "packed/at/*", "history", "forecasts", LOCKS):
        for draft in home.glob(f"{folder}/.*"):
            yield draft, LEAST_S, "left by a process that was killed"


def _journal(home: Path, reach: Reach) -> Iterator[tuple[Path, float, str]]:
    cached = {key for key, chain in reach.cache if chain in reach.layers}
    diff_ids = {str(layer.diff_id) for layer in reach.layers.values()}
    for path in home.glob("journal/[!.]*"):
        if path.stem not in cached and not diff_ids & set(_said(path, "made")):
            yield path, KEPT_S, "the layers it explains are gone"


def _packed(home: Path, reach: Reach) -> Iterator[tuple[Path, float, str]]:
    diff_ids = {layer.diff_id.hex for layer in reach.layers.values()}
    for path in home.glob("packed/[!.]*.*"):
        if path.stem not in diff_ids:
            yield path, KEPT_S, "the layer it packs is gone"
    for path in home.glob("packed/at/*/[!.]*"):
        yield path, KEPT_S, "that registry was not used"


def _history(home: Path, reach: Reach) -> Iterator[tuple[Path, float, str]]:
    there = {Digest.of(path.encode()).hex[:24] for path in reach.notebooks if Path(path).exists()}
    for path in home.glob("history/[!.]*"):
        if path.stem not in there:
            yield path, KEPT_S, "its notebook is gone, or was not changed"


def _forecasts(home: Path, reach: Reach) -> Iterator[tuple[Path, float, str]]:
    layers = {str(chain) for chain in reach.layers}
    for path in home.glob("forecasts/[!.]*"):
        if path.suffix != ".json":  # `<name>.<pid>`, while it is written
            yield path, LEAST_S, "left by a process that was killed"
        elif _said(path, "chain_id") not in layers:
            yield path, KEPT_S, "the image it names is gone"


def _locks(home: Path, reach: Reach) -> Iterator[tuple[Path, float, str]]:
    for path in home.glob(f"{LOCKS}/[!.]*"):
        notebook = _said(path, "notebook")
        if not (isinstance(notebook, str) and notebook and Path(notebook).exists()):
            yield path, KEPT_S, "its notebook is gone"


def _said(path: Path, field: str) -> str | dict[str, object]:
    """One field of such a file; nothing where it cannot be read."""
    with suppress(OSError, ValueError, AttributeError):
        found = json.loads(path.read_bytes()).get(field)
        if isinstance(found, str | dict):
            return found
    return ""
