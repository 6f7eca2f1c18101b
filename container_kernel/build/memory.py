"""Memory: what a notebook looked like when it was built last, for the next kernel that opens it.

Kernels that were told of no notebook share one, without cells: the image the last of them ran on.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CellError
from ..record import record
from ..store.index import Index
from . import forecast as forecasts
from .forecast import Forecast
from .notebook_file import code_cells, identity_of
from .stages import Parse, Stages
from .step import Base

if TYPE_CHECKING:
    from ..store.store import Store

_GIVEN = "text:given"
"""The identity of a first cell that is not in the notebook: its kernel's own image."""


@record
class Memory:
    """The stage in use, the build cells' identities and texts, the image's digest."""

    current: str | None = None
    cells: tuple[tuple[str, str], ...] = ()
    image: str | None = None


def read(index: Index, notebook: Path | None) -> Memory:
    """What was written last; an empty one where nothing was."""
    text = index.notebook(_name(notebook))
    if text is None:
        return Memory()
    state = json.loads(text)
    cells = tuple((identity, code) for identity, code in state["cells"])
    return Memory(state["current"], cells, state.get("image"))


def write(store: Store, notebook: Path | None, stages: Stages) -> None:
    """Remember ``stages``, of which there is one at least; forecast what the next kernel starts."""
    known = stages.by_name.values() if notebook else ()
    stage = stages.find(None)
    image = stage.image
    state = {
        "current": stages.current,
        "cells": [(cell.identity, cell.code) for stage in known for cell in stage.cells],
        "image": str(image.digest) if image else None,
    }
    store.index.remember_notebook(_name(notebook), json.dumps(state))
    if image:
        found = Forecast(stage.name, image.chain_id, image.config)
        forecasts.write(store.home, forecasts.name_of(notebook), found)


def forecast(store: Store, notebook: Path | None, image: str | None) -> Forecast | None:
    """What a kernel starts first, as the store has it; None where there is nothing, or it is gone.

    Where nothing is remembered of the notebook that is ``image``. A kernel that was told of neither
    takes what the last such kernel ran on.
    """
    known = Memory()
    if notebook is not None or image is None:
        known = read(store.index, notebook)
    name = known.image or image
    digest = store.find_image(name) if name else None
    if digest is None:
        return None
    config = store.image_config(store.manifest(digest))
    return Forecast(known.current or Base.stage, store.image_chain(config), config)


def recall(
    index: Index, notebook: Path | None, stages: Stages, parse: Parse, base: str | None
) -> None:
    """Put the cells that were there last into ``stages``, as the file has them now.

    A ``base`` that no cell says goes before all of them.
    """
    if base is not None:
        first = Base(base)
        stages.put(_GIVEN, first.title, (first,), None)
    if notebook is None:
        return
    known = read(index, notebook)
    for identity, code in _as_in_file(known, notebook):
        with suppress(CellError):  # told when the cell is run
            stages.read(identity, code, parse)
    if known.current in stages.by_name:
        stages.current = known.current


def _as_in_file(known: Memory, notebook: Path) -> list[tuple[str, str]]:
    """The cells that the file still has, in its order, and those that say which stage they are for.

    Where it cannot be read, or was never saved since it was new, all of them as they were.
    """
    remembered = {identity: code for identity, code in known.cells if identity != _GIVEN}
    present: list[tuple[str, str]] = []
    with suppress(CellError):
        present = code_cells(notebook)
    if not any(text.strip() for _, text in present):
        return list(remembered.items())
    found = []
    for identity, text in present:
        name = identity if identity in remembered else identity_of(None, text)
        if name in remembered:
            found.append((name, remembered[name]))
        elif "%use" in text:
            found.append((identity, text))
    return found


def _name(notebook: Path | None) -> str:
    return str(notebook) if notebook else ""
