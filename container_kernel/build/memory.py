"""Memory: what a notebook looked like when it was built last, for the next kernel that opens it.

Kernels that were told of no notebook share one, without cells: the image the last of them ran on.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..record import record
from ..store.index import Index
from .stages import Stages


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


def write(index: Index, notebook: Path | None, stages: Stages) -> None:
    """Remember ``stages``, of which there is one at least."""
    known = stages.by_name.values() if notebook else ()
    image = stages.find(None).image
    state = {
        "current": stages.current,
        "cells": [(cell.identity, cell.code) for stage in known for cell in stage.cells],
        "image": str(image.digest) if image else None,
    }
    index.remember_notebook(_name(notebook), json.dumps(state))


def _name(notebook: Path | None) -> str:
    return str(notebook) if notebook else ""
