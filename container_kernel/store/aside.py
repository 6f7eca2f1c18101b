"""Aside: what is damaged is moved out of the way, never deleted."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

QUARANTINE = "quarantine"
"""The folder of a store where such things lie, each under a name of its own."""


def set_aside(path: Path, home: Path) -> Path:
    """Move something of the store ``home`` out of its way; returns where it is now."""
    folder = home / QUARANTINE
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{path.name}-{os.urandom(4).hex()}"
    with suppress(FileNotFoundError):
        path.rename(target)
    return target
