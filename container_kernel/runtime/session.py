"""Session: what the live containers of a notebook are given besides their image.

``%net``, ``%mount`` and ``%publish`` change it. A published port stays open while containers come
and go; it leads into the one that was started last, or that it was asked for in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..record import field, record
from .limits import Limits
from .network import NONE, Network
from .relaxed import Relaxed
from .wish import Wish

if TYPE_CHECKING:
    from .mounts import Wish as MountWish
    from .publish import Published


@record(frozen=False)
class Session:
    """``home`` is the user's home folder."""

    home: Path
    network: Network = NONE
    mounts: list[MountWish] = field(default_factory=list)
    ports: list[Published] = field(default_factory=list)

    def wish(self, limits: Limits, relaxed: Relaxed) -> Wish:
        """How the next live container is to run."""
        return Wish(
            limits=limits,
            relaxed=relaxed,
            network=self.network,
            mounts=tuple(self.mounts),
            ports=self.ports,
            home=self.home,
        )

    def close(self) -> None:
        """Give the ports back."""
        for port in self.ports:
            port.close()
        self.ports.clear()
