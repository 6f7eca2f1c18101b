"""Imported: is a layer that came as a foreign tar still what it was when it came?

Its tar cannot be written again from its tree, so it is unpacked once more from its blob, and the
two are compared. That takes as long as importing it, and is done only where inodes changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..store.snapshots import Snapshot
    from ..store.store import Store
    from ..store.trees import Change


def guard(store: Store) -> None:
    """From now on freeze nothing on an imported layer that was changed in ``store``."""

    def examine(snapshot: Snapshot) -> list[Change] | None:
        from ..transfer import restore  # for those whose imported layers were touched

        restore.guard(store)
        return store.snapshots.examine_imported(snapshot)

    store.snapshots.examine_imported = examine
