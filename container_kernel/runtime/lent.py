"""Lent: the ids that containers of root are mapped to, where this host lends root a range.

Root of a container is then nobody on the host. Frozen trees keep the image's ids: id-mapped mounts
show them as the range's, so nothing is chowned and a layer is the same whoever made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .. import syscalls
from ..oci.idmap import IdMap
from ..record import record
from .host import userns_of
from .subordinate import Range

if TYPE_CHECKING:
    from .host import Host


@record
class Lent:
    """``idmap`` is how ids of an image are in containers, ``view`` the store's folder so.

    ``userns`` is a user namespace that makes id-mapped mounts of the kind. ``has_memory`` says
    whether what lies in memory can be shown so too (tmpfs, Linux 6.3).
    """

    idmap: IdMap
    userns: int
    view: Path
    has_memory: bool

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Have this thread make files as root of the containers, with all it may.

        Files of anybody else cannot be made in what is id-mapped: they have no id on disk.
        """
        syscalls.make_files_as(self.idmap.to_disk(0))
        try:
            yield
        finally:
            syscalls.make_files_as(0)


def of(host: Host, ids: Range, home: Path) -> Lent | None:
    """For a store; None where its file system cannot show other owners."""
    rows = f"0 {ids.start} {ids.count}"
    try:
        userns = userns_of(rows, rows)
        view = host.bind(home, readonly=False, shift=userns)
    except OSError:
        return None
    has_memory = True
    try:
        host.unbind(host.bind(host.new_folder("memory"), shift=userns))
    except OSError:
        has_memory = False
    return Lent(IdMap(((0, ids.start, ids.count),)), userns, view, has_memory)
