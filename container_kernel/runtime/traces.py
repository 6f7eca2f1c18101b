"""Traces: what a container leaves on the host when it has ended."""

from __future__ import annotations

from pathlib import Path

from ..folders import remove_tree
from ..record import record
from . import cgroup, strays
from .cgroup import CgroupParent


@record
class Traces:
    """What a container that ended has left: its cgroup, bundle and state."""

    name: str
    cgroup: CgroupParent | None
    leftovers: tuple[Path, ...]

    def remove(self) -> None:
        """Take all of it away."""
        if self.cgroup is not None:
            self.cgroup.remove(self.name)
        else:
            cgroup.remove_unasked(self.name)
        for path in self.leftovers:
            remove_tree(path)
        strays.bury()
