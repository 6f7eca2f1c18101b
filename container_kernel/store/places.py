"""Places: everything that may lie in a store's folder, and what is to become of it."""

from __future__ import annotations

from .aside import QUARANTINE

DOWNLOADS = "downloads"
INPUTS = f"{DOWNLOADS}/inputs"
VOLUMES = "volumes"
LOCKS = "locks"
RECORDS = ("forecasts", "history", "journal", LOCKS, "packed")
"""Small files that explain, or make something quick; see `beside`."""
_THINGS = ("content", "snapshots", DOWNLOADS, VOLUMES, QUARANTINE, "trash")
_FILES = ("tags.json", "index.damaged", "index.db", "index.db-journal", "index.db-shm")
WORKING = ("active", "building", "leases", "index.db-wal", "store.json", *_FILES)
"""What is there while somebody works, and what the store knows of itself."""
KNOWN = frozenset((*_THINGS, *RECORDS, *WORKING))
