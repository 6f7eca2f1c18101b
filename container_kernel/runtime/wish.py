"""Wish: how a container is to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..record import record
from .network import NONE, Network
from .relaxed import Relaxed

if TYPE_CHECKING:
    from .limits import Limits
    from .mounts import Wish as MountWish
    from .publish import Published


@record(kw_only=True)
class Wish:
    """What is None is the image's or the default. ``home`` is the user's, for mounts; ``ports``
    lead in while it runs.
    """

    user: str | None = None
    relaxed: Relaxed = Relaxed()
    network: Network = NONE
    limits: Limits
    mounts: tuple[MountWish, ...] = ()
    ports: Sequence[Published] = ()
    home: Path = Path("/")
    env: Mapping[str, str] | None = None
