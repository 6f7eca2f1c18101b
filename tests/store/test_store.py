"""The store's folder: whose it is, what is refused, what survives."""

import json
import os
import sqlite3
import stat
import threading
import time

import pytest

from container_kernel.errors import IndexDamaged, StoreError
from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap
from container_kernel.oci.spec import ImageConfig
from container_kernel.store.index import SCHEMA_VERSION, Index, journal_mode
from container_kernel.store.store import Store

A, B = Digest.of(b"a"), Digest.of(b"b")


@pytest.fixture
def open_store(tmp_path):
    """Open the store of this test, as often as asked."""
    opened = []

    def open_store(idmap=None, home="home"):
        opened.append(Store(tmp_path / home, idmap or IdMap.identity(), userxattr=False))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_can_look_inside(open_store, umask):
    before = os.umask(umask)
    try:
        store = open_store()
        store.put_image(ImageConfig("amd64", "linux"), [])
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.home.stat().st_mode) == 0o700


def test_a_store_of_other_ids_is_refused_untouched(open_store):
    open_store()
    with pytest.raises(StoreError, match="other ids"):
        open_store(IdMap.single())


def test_a_store_of_a_newer_version_is_refused_untouched(open_store):
    home = open_store().home
    record = json.loads((home / "store.json").read_text())
    (home / "store.json").write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(StoreError, match="version 99"):
        open_store()


def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="CONTAINER_KERNEL_HOME"):
        Store(tmp_path / "file/home", IdMap.identity(), userxattr=False)


def test_wal_only_where_it_is_safe():
    assert journal_mode((3, 40, 1)) == "TRUNCATE"
    assert journal_mode((3, 51, 2)) == "TRUNCATE"
    assert journal_mode((3, 51, 3)) == "WAL"


def test_a_newer_index_is_refused(tmp_path):
    Index(tmp_path / "index.db").close()
    with sqlite3.connect(tmp_path / "index.db") as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer"):
        Index(tmp_path / "index.db")


def test_a_damaged_index_says_what_is_lost_and_what_is_not(tmp_path):
    (tmp_path / "index.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(IndexDamaged, match="layers are not lost"):
        Index(tmp_path / "index.db")


def test_tags_move_and_go(open_store):
    tags = open_store().tags
    tags.set("iris:1", A)
    tags.set("iris:1", B)
    assert tags.list() == {"iris:1": B}
    assert tags.remove("iris:1")
    assert not tags.remove("iris:1")
    assert tags.get("iris:1") is None


def test_images_are_found_by_tag_digest_and_beginning(open_store):
    store = open_store()
    digest = store.put_image(ImageConfig("amd64", "linux", created="2026-01-01T00:00:00Z"), [])
    store.tags.set("mine:latest", digest)
    for reference in ("mine:latest", "mine", str(digest), digest.hex, digest.hex[:8]):
        assert store.find_image(reference) == digest
    assert store.find_image("other") is None
    assert store.find_image(digest.hex[:4]) is None


def test_a_config_is_no_image(open_store):
    store = open_store()
    manifest = store.manifest(store.put_image(ImageConfig("amd64", "linux"), []))
    assert store.find_image(str(manifest.config.digest)) is None


def test_two_builders_of_one_key_take_turns(open_store):
    store = open_store()
    inside, most = [], []

    def build():
        with store.building("0" * 64, lambda: time.sleep(0.001)):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert os.listdir(store.home / "building") == []


def test_waiting_for_a_builder_can_be_given_up(open_store):
    store = open_store()

    def give_up():
        raise KeyboardInterrupt

    with (
        store.building("0" * 64, give_up),
        pytest.raises(KeyboardInterrupt),
        store.building("0" * 64, give_up),
    ):
        pass
