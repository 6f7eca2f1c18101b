"""Index: the small facts of a store, in one SQLite file.

Which step made which layer (the build cache), what names images have, what each notebook last
looked like, and what the kernel of an image says of itself. Frozen trees and blobs are not in here:
they describe themselves, so that losing this file loses names and cache hits, never a layer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StoreError
from ..oci.digest import Digest
from ..record import record

SCHEMA_VERSION = 2
_WAL_IS_SAFE_SINCE = (3, 51, 3)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cache (
    key TEXT PRIMARY KEY, chain_id TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notebooks (path TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kernels (chain_id TEXT PRIMARY KEY, info TEXT NOT NULL) WITHOUT ROWID;
"""


@record
class CacheHit:
    """The layer a step was frozen into before, and how long the step took then."""

    chain_id: Digest
    seconds: float


def journal_mode(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """WAL where this SQLite has the WAL-reset fix (3.51.3), else a rollback journal.

    Before it, two processes that write and checkpoint at once can corrupt the file, and two
    notebooks on one store do just that.
    """
    return "WAL" if version >= _WAL_IS_SAFE_SINCE else "TRUNCATE"


class Index:
    """One open connection; what a method wrote is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained():
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._db.execute(f"PRAGMA journal_mode={journal_mode()}")
            self._db.execute("PRAGMA synchronous=FULL")
            self._prepare()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def find_layer(self, key: str) -> CacheHit | None:
        """The layer frozen for the cache key ``key``."""
        row = self._one("SELECT chain_id, seconds FROM cache WHERE key = ?", key)
        return CacheHit(Digest(row[0]), row[1]) if row else None

    def remember_layer(self, key: str, chain_id: Digest, seconds: float) -> None:
        """Say that ``key`` is answered by the layer ``chain_id`` from now on."""
        self._write("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", key, str(chain_id), seconds)

    def set_tag(self, name: str, digest: Digest) -> None:
        """Let ``name`` mean the manifest ``digest``, whatever it meant before."""
        self._write("INSERT OR REPLACE INTO tags VALUES (?, ?)", name, str(digest))

    def tag(self, name: str) -> Digest | None:
        """What ``name`` means."""
        row = self._one("SELECT digest FROM tags WHERE name = ?", name)
        return Digest(row[0]) if row else None

    def tags(self) -> dict[str, Digest]:
        """All names, sorted."""
        with self._explained():
            rows = self._db.execute("SELECT name, digest FROM tags ORDER BY name").fetchall()
        return {name: Digest(digest) for name, digest in rows}

    def remove_tag(self, name: str) -> bool:
        """Forget ``name``; False when nobody knew it."""
        return self._write("DELETE FROM tags WHERE name = ?", name) > 0

    def remember_notebook(self, path: str, state: str) -> None:
        """Keep what the notebook at ``path`` looks like, for the next kernel that opens it."""
        self._write("INSERT OR REPLACE INTO notebooks VALUES (?, ?)", path, state)

    def notebook(self, path: str) -> str | None:
        """What `remember_notebook` was last told about ``path``."""
        row = self._one("SELECT state FROM notebooks WHERE path = ?", path)
        return str(row[0]) if row else None

    def remember_kernel(self, chain_id: Digest, info: str) -> None:
        """Keep what the kernel in ``chain_id`` says of itself, for the next that is asked."""
        if self.kernel(chain_id) != info:
            self._write("INSERT OR REPLACE INTO kernels VALUES (?, ?)", str(chain_id), info)

    def kernel(self, chain_id: Digest) -> str | None:
        """What `remember_kernel` was last told about ``chain_id``."""
        row = self._one("SELECT info FROM kernels WHERE chain_id = ?", str(chain_id))
        return str(row[0]) if row else None

    def _prepare(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self._path.parent} was written by a newer version (schema {version}, "
                f"this one knows {SCHEMA_VERSION})",
                hint="upgrade container-kernel, or set CONTAINER_KERNEL_HOME to another folder",
            )
        if version < SCHEMA_VERSION:
            self._db.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )

    def _one(self, query: str, *values: object) -> tuple[str, float] | None:
        with self._explained():
            row: tuple[str, float] | None = self._db.execute(query, values).fetchone()
            return row

    def _write(self, statement: str, *values: object) -> int:
        with self._explained():
            return self._db.execute(statement, values).rowcount

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"cannot use {self._path}: {error}", hint=_FULL_HINT) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path} is damaged: {error}",
                hint=f"move {self._path} away: layers stay, names and cache hits start anew",
            ) from error


_FULL_HINT = "free space, or set CONTAINER_KERNEL_HOME to a folder you can write"
