"""Lock roots: the locks that a store has seen, which keep what they name from being collected.

A lock lies beside its notebook, where nobody tells the store of it. So whoever writes a lock, or
builds by one, notes in the store whose it is and what it names. While the notebook is there, its
lock of today counts. Once it is gone (moved, on a disk that is not mounted) the note does, until it
is as old as small files get (see `store.beside`); a build where it was moved to notes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import LockBroken
from ..oci.digest import Digest
from ..store.places import LOCKS
from ..store.small_files import write_whole
from ..store.store import Store
from . import lock


def note(store: Store, notebook: Path, held: lock.Lock) -> None:
    """Note in the store that the lock of ``notebook`` is used, if things may go from it."""
    if store.is_readonly:
        return
    name = Digest.of(str(notebook).encode()).hex[:24]
    said = {"notebook": str(notebook), "packages": sorted(lock.packages(held))}
    write_whole(store.home / LOCKS / f"{name}.json", json.dumps(said))


def packages(store: Store) -> frozenset[str]:
    """The digests, in hexadecimal, of the packages that a lock keeps in ``store``.

    Those are the locks it was told of, and those of notebooks that were built in it.
    """
    found: set[str] = set()
    for path, _ in store.index.rows("notebooks"):
        found |= _named_by(Path(path), ())
    for notebook, noted in _notes(store.home):
        found |= _named_by(notebook, noted)
    return frozenset(found)


def _notes(home: Path) -> Iterator[tuple[Path, list[str]]]:
    for path in home.glob(f"{LOCKS}/[!.]*"):
        with suppress(OSError, ValueError, LookupError, TypeError):
            said = json.loads(path.read_bytes())
            yield Path(said["notebook"]), [str(one) for one in said["packages"]]


def _named_by(notebook: Path, noted: list[str] | tuple[()]) -> set[str]:
    """What the lock of ``notebook`` names; what was noted where it cannot be read."""
    with suppress(OSError, ValueError, AttributeError, LockBroken):
        if held := lock.read(notebook):
            return lock.packages(held)
    return set(noted)
