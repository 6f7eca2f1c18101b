"""The index: damaged in every way, moved aside, made again from what the store holds."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from container_kernel.errors import StoreError
from container_kernel.oci.digest import Digest
from container_kernel.store.check import check
from container_kernel.store.index import COPY, SCHEMA_VERSION, Index, copied_tags
from tests.store.whole import Whole

pytestmark = pytest.mark.privileged


@pytest.fixture
def whole(tmp_path, entered):
    """A store with all kinds of things in it."""
    whole = Whole(tmp_path / "home", entered)
    whole.store.close()
    yield whole
    whole.store.close()


def cut(to):
    def damage(path):
        os.truncate(path, int(path.stat().st_size * to))

    return damage


def overwrite(page):
    def damage(path):
        with path.open("r+b") as file:
            file.seek(page * 4096)
            file.write(os.urandom(4096))

    return damage


DAMAGES = {
    "truncated to nothing": cut(0),
    "truncated to half": cut(0.5),
    "first page": overwrite(0),
    "second page": overwrite(1),
    "third page": overwrite(2),
    "no database": lambda path: path.write_bytes(b"this is no database" * 1000),
    "gone": lambda path: path.unlink(),
    "found broken by another process": lambda path: path.with_suffix(".damaged").touch(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_names_and_cached_steps_survive_the_database(whole, damage):
    path = whole.home / "index.db"
    DAMAGES[damage](path)
    store = whole.open()
    (told,) = store.take_notices()
    assert "3 names, 3 cached steps" in told
    assert "rebuilt" in told
    assert store.take_notices() == []
    assert store.tags.list() == {"one:1": whole.one, "two:1": whole.two, "three:1": whole.three}
    assert store.index.find_layer(Digest.of(b"top").hex).chain_id == whole.top.chain_id
    assert any(name.startswith("index.db-") for name in os.listdir(whole.home / "quarantine"))
    assert [finding for finding in check(store, full=True) if finding.weight == "damage"] == []
    assert whole.reopen().take_notices() == []


def test_rows_that_can_be_read_are_taken_over(whole):
    """What a notebook looked like is nowhere else."""
    (whole.home / "index.damaged").touch()
    assert '"cells"' in whole.open().index.notebook("/n.ipynb")


def test_a_process_that_has_it_open_goes_on_after_another_rebuilt_it(whole):
    first = whole.open()
    (whole.home / "index.damaged").touch()
    second = whole.open()
    second.tags.set("new:1", whole.one)
    first.close()
    assert whole.open().tags.get("new:1") == whole.one


_KILLED = """
import sqlite3, sys, os, signal
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size=1")
db.execute("PRAGMA cache_spill=1")
db.execute("BEGIN IMMEDIATE")
db.execute("DELETE FROM tags")
db.execute("UPDATE cache SET seconds = 99")
for number in range(200):
    db.execute("INSERT INTO notebooks VALUES (?, ?, 0)", (f"/{number}", "x" * 3000))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_hot_journal_is_rolled_back(whole):
    path = whole.home / "index.db"
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert (whole.home / "index.db-journal").stat().st_size > 0
    store = whole.open()
    assert store.take_notices() == []
    assert len(store.tags.list()) == 3
    assert store.index.integrity() == []


def test_a_rebuilt_index_lets_nothing_be_built_again(whole):
    (whole.home / "index.db").write_bytes(b"")
    whole.open()
    hits = [whole.store.index.find_layer(Digest.of(key).hex) for key in (b"base", b"top")]
    assert [hit.chain_id for hit in hits] == [whole.base.chain_id, whole.top.chain_id]


# ---------------------------------------------------------------- schemas

_VERSION_2 = """
CREATE TABLE cache (
    key TEXT PRIMARY KEY, chain_id TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE tags (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE notebooks (path TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE kernels (chain_id TEXT PRIMARY KEY, info TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version=2;
"""
_OPEN = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from container_kernel.store.index import Index
Index(Path({db!r})).close()
"""


@pytest.fixture
def old(tmp_path):
    """An index as an earlier version wrote it."""
    path = tmp_path / "index.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(_VERSION_2)
        db.execute("INSERT INTO tags VALUES ('a:1', ?)", (str(Digest.of(b"a")),))
        db.execute("INSERT INTO cache VALUES ('k', ?, 1.5)", (str(Digest.of(b"c")),))
        db.commit()
    return path


def version_of(path):
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        columns = len(db.execute("PRAGMA table_info(tags)").fetchall())
    return version, columns


def test_an_older_index_is_brought_up(old):
    with closing(Index(old)) as index:
        assert index.tags() == {"a:1": Digest.of(b"a")}
        assert index.find_layer("k").seconds == 1.5
    assert version_of(old) == (SCHEMA_VERSION, 3)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["pwrite64", "fsync,fdatasync", "ftruncate,unlink"])
def test_killed_anywhere_it_is_of_the_old_version_or_the_new(old, tmp_path, call):
    """Never something between, and the next one finishes it."""
    seen = set()
    for when in range(1, 40, 1 if call != "pwrite64" else 2):
        copy = tmp_path / f"{when}.db"
        shutil.copy(old, copy)
        code = _OPEN.format(path=sys.path, db=str(copy))
        inject = f"inject={call}:signal=KILL:when={when}"
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject]
        done = subprocess.run([*strace, sys.executable, "-I", "-S", "-c", code])
        seen.add(version_of(copy))
        with closing(Index(copy)) as index:
            assert index.tags() == {"a:1": Digest.of(b"a")}
        if done.returncode == 0:
            break
    assert seen <= {(2, 2), (SCHEMA_VERSION, 3)}
    assert (SCHEMA_VERSION, 3) in seen


def test_the_copy_of_names_never_knows_less(whole):
    store = whole.open()
    left = whole.home / f".{COPY}.left"
    left.touch()  # by one that was killed
    store.tags.set("four:1", whole.one)
    assert not left.exists()
    assert copied_tags(whole.home) == store.tags.list()
    store.tags.remove("four:1")
    assert copied_tags(whole.home) == store.tags.list()


def test_threads_share_a_connection_and_no_transaction(whole):
    """What one thread wrote is not undone by what another gives up."""
    store = whole.open()
    inside, written = threading.Event(), threading.Event()

    def write():
        inside.wait()
        store.index.remember_layer("k", whole.one, 1.0)
        written.set()

    thread = threading.Thread(target=write)
    thread.start()

    def give_up():
        with store.index.together():
            inside.set()
            assert not written.wait(0.1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    thread.join()
    assert store.index.find_layer("k")


def test_a_fork_does_not_use_what_its_parent_opened(whole):
    """SQLite would damage the file; the parent goes on."""
    store = whole.open()
    pid = os.fork()
    if pid == 0:
        refused = False
        try:
            store.tags.set("forked:1", whole.one)
        except StoreError as error:
            refused = "after the fork" in error.hint
        finally:
            os._exit(0 if refused else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert whole.store.tags.get("forked:1") is None
    assert whole.store.index.integrity() == []
