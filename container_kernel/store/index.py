"""Index: the small facts of a store, in one SQLite file.

Which step made which layer (the build cache), what names images have, what each notebook last
looked like, and what the kernel of an image says of itself. Frozen trees and blobs are not in here:
they describe themselves, so that losing this file loses no layer. Nor is it the only place that
knows the rest: names are copied to ``tags.json`` before they are committed, cache keys lie beside
their layers, and `rebuild` makes the file again.

SQLite notices a damaged page only where its structure breaks, so each row carries a checksum of
its values.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import IndexDamaged, StoreError
from ..oci.digest import Digest
from ..record import record

SCHEMA_VERSION = 3
COPY = "tags.json"
TABLES = {
    "cache": ("key", "chain_id", "seconds"),
    "tags": ("name", "digest"),
    "notebooks": ("path", "state"),
    "kernels": ("chain_id", "info"),
}
_WAL_IS_SAFE_SINCE = (3, 51, 3)
_QUICKLY_CHECKED_BYTES = 256 << 10
# Each step brings a file of its number to the next one; all that are needed are one transaction.
_MIGRATIONS = {
    0: """
CREATE TABLE cache (
    key TEXT PRIMARY KEY, chain_id TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE tags (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE notebooks (path TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
""",
    1: """
CREATE TABLE IF NOT EXISTS kernels (
    chain_id TEXT PRIMARY KEY, info TEXT NOT NULL) WITHOUT ROWID;
""",
    2: "".join(
        f"""
ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE {table} SET checksum = row_checksum({", ".join(columns)});
"""
        for table, columns in TABLES.items()
    ),
}


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
    """One open connection; what a method wrote is on disk when it returns.

    Raises:
        IndexDamaged: the file is no database any more; `rebuild` makes it again.
        StoreError: it is of a newer version, or the disk refuses.
    """

    def __init__(self, path: Path, *, is_readonly: bool = False) -> None:
        self.path = path
        self._is_readonly = is_readonly
        self._pid = os.getpid()
        self._writing = threading.RLock()  # threads share the connection, and so its transaction
        source = f"file:{_quoted(path)}?mode=ro" if is_readonly else str(path)
        with self._explained():
            self._db = sqlite3.connect(
                source, timeout=30, isolation_level=None, check_same_thread=False, uri=is_readonly
            )
        try:
            with self._explained():
                self._db.create_function("row_checksum", -1, checksum, deterministic=True)
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def find_layer(self, key: str) -> CacheHit | None:
        """The layer frozen for the cache key ``key``."""
        row = self._one("SELECT * FROM cache WHERE key = ?", key)
        return CacheHit(Digest(row[1]), float(row[2])) if row and is_whole(row) else None

    def remember_layer(self, key: str, chain_id: Digest, seconds: float) -> None:
        """Say that ``key`` is answered by the layer ``chain_id`` from now on."""
        self.put("cache", key, str(chain_id), seconds)

    def set_tag(self, name: str, digest: Digest) -> None:
        """Let ``name`` mean the manifest ``digest``, whatever it meant before."""
        with self._naming():
            self.put("tags", name, str(digest))

    def tag(self, name: str) -> Digest | None:
        """What ``name`` means.

        Raises:
            StoreError: what is known of it is damaged.
        """
        row = self._one("SELECT * FROM tags WHERE name = ?", name)
        if row and not is_whole(row):
            raise StoreError(
                f"what the store knows of the name {name} is damaged",
                hint="run `container-kernel store check --repair`",
            )
        return Digest(row[1]) if row else None

    def tags(self) -> dict[str, Digest]:
        """All names, sorted; damaged ones are passed over."""
        return {str(name): Digest(digest) for name, digest in self.rows("tags")}

    def remove_tag(self, name: str) -> bool:
        """Forget ``name``; False when nobody knew it."""
        with self._naming():
            return self.remove("tags", name)

    def remember_notebook(self, path: str, state: str) -> None:
        """Keep what the notebook at ``path`` looks like, for the next kernel that opens it."""
        if not self._is_readonly:
            self.put("notebooks", path, state)

    def notebook(self, path: str) -> str | None:
        """What `remember_notebook` was last told about ``path``."""
        row = self._one("SELECT * FROM notebooks WHERE path = ?", path)
        return str(row[1]) if row and is_whole(row) else None

    def remember_kernel(self, chain_id: Digest, info: str) -> None:
        """Keep what the kernel in ``chain_id`` says of itself, for the next that is asked."""
        if not self._is_readonly and self.kernel(chain_id) != info:
            self.put("kernels", str(chain_id), info)

    def kernel(self, chain_id: Digest) -> str | None:
        """What `remember_kernel` was last told about ``chain_id``."""
        row = self._one("SELECT * FROM kernels WHERE chain_id = ?", str(chain_id))
        return str(row[1]) if row and is_whole(row) else None

    # ------------------------------------------------------------ rows, for check and collect

    def rows(self, table: str, *, whole: bool = True) -> list[tuple[str, ...]]:
        """The rows of a table without their checksums: those that are whole, or the others."""
        with self._explained():
            key = TABLES[table][0]
            rows = self._db.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall()
        return [row[:-1] for row in rows if is_whole(row) == whole]

    def put(self, table: str, *values: object) -> None:
        """Write a row in the place of the one with the same first value."""
        marks = ", ".join("?" * (len(values) + 1))
        statement = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"
        self._write(statement, *values, checksum(*values))

    def remove(self, table: str, key: str) -> bool:
        """Remove the row of that first value; False when there is none."""
        return self._write(f"DELETE FROM {table} WHERE {TABLES[table][0]} = ?", key) > 0

    def integrity(self) -> list[str]:
        """What SQLite itself finds wrong with the file."""
        with self._explained():
            found = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is written meanwhile is committed at once, or not at all."""
        with self._writing:
            with self._explained():
                self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._explained():
                    self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _prepare(self) -> None:
        if 0 < self.path.stat().st_size <= _QUICKLY_CHECKED_BYTES:
            (said,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(said)
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.path.parent} was written by a newer version (schema {version}, "
                f"this one knows {SCHEMA_VERSION})",
                hint="upgrade container-kernel, or set CONTAINER_KERNEL_HOME to another folder",
            )
        if self._is_readonly:
            return
        self._db.execute(f"PRAGMA journal_mode={journal_mode()}")
        self._db.execute("PRAGMA synchronous=FULL")
        if version < SCHEMA_VERSION:
            self._migrate()

    def _migrate(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been first.
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for number in range(version, SCHEMA_VERSION):
                for statement in _MIGRATIONS[number].split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def copy_names(self) -> None:
        """Write the copy of all names again."""
        with self._naming():
            pass

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Change names; the copy has them first, so that it never knows less than the index."""
        with self.together():
            yield
            copy_tags(self.path.parent, self.tags())

    def _one(self, query: str, *values: object) -> tuple[str, ...] | None:
        with self._explained():
            row: tuple[str, ...] | None = self._db.execute(query, values).fetchone()
            return row

    def _write(self, statement: str, *values: object) -> int:
        with self._writing, self._explained():
            return self._db.execute(statement, values).rowcount

    @contextmanager
    def _explained(self) -> Iterator[None]:
        # A fork shares the file's offset and locks, and what it wrote would damage the file
        # (sqlite.org/howtocorrupt.html, 2.6).
        if self._pid != os.getpid():
            raise StoreError(
                f"{self.path} was opened by process {self._pid}, not by this one",
                hint="open the store after the fork",
            )
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"cannot use {self.path}: {error}", hint=_FULL_HINT) from error
        except sqlite3.DatabaseError as error:
            with suppress(OSError):
                damage_mark(self.path).touch(mode=0o600)
            raise IndexDamaged(self.path, str(error)) from error


def checksum(*values: object) -> int:
    """What a row carries to tell that its values are those that were written."""
    return zlib.crc32("\0".join(map(str, values)).encode(errors="surrogatepass"))


def is_whole(row: tuple[object, ...]) -> bool:
    """True when a row's last value is the checksum of the others."""
    *values, found = row
    return checksum(*values) == found


def damage_mark(path: Path) -> Path:
    """The file that tells the next process that the index is to be made again."""
    return path.with_suffix(".damaged")


def copy_tags(home: Path, tags: Mapping[str, Digest]) -> None:
    """Write the copy of all names, as one durable step; one process at a time may."""
    fresh = home / f".{COPY}.{os.urandom(4).hex()}"
    values = {name: str(digest) for name, digest in tags.items()}
    try:
        for left in home.glob(f".{COPY}.*"):
            left.unlink(missing_ok=True)
        with fresh.open("x") as file:
            json.dump({"tags": values, "checksum": checksum(*values.items())}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(home / COPY)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {home / COPY}: {error.strerror}", hint=_FULL_HINT
        ) from error


def copied_tags(home: Path) -> dict[str, Digest] | None:
    """The copy of all names; None when there is none that is whole."""
    try:
        said = json.loads((home / COPY).read_text())
        tags = dict(said["tags"])
        if checksum(*tags.items()) != said["checksum"]:
            return None
        return {str(name): Digest(digest) for name, digest in tags.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _quoted(path: Path) -> str:
    from urllib.parse import quote  # for stores that cannot be written only

    return quote(str(path))


_FULL_HINT = "free space, or set CONTAINER_KERNEL_HOME to a folder you can write"
