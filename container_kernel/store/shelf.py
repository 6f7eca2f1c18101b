"""Shelf: the frozen trees of a store and how they are mounted: what a container needs of one."""

from __future__ import annotations

from pathlib import Path

from ..oci.idmap import IdMap
from .snapshots import Snapshots


class Shelf:
    """The trees of the store at ``home``, which was opened as a whole at least once.

    ``idmap`` says who the ids in them are on disk, ``userxattr`` how overlays mark what is gone.
    """

    def __init__(self, home: Path, idmap: IdMap, *, userxattr: bool) -> None:
        self.home = home
        self.idmap = idmap
        self.userxattr = userxattr
        self.snapshots = Snapshots(home, idmap, userxattr=userxattr)
