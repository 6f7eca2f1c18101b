"""Damage done on purpose, one thing at a time: named, with who needs it; mended without loss."""

import contextlib
import errno
import gc
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest

from container_kernel.build.imported import guard
from container_kernel.errors import BlobDamaged, HostError, StoreError
from container_kernel.oci.digest import Digest
from container_kernel.store import layer
from container_kernel.store import repair as repairs
from container_kernel.store.check import DAMAGES, check
from container_kernel.store.reach import Reach
from container_kernel.store.trees import examine
from container_kernel.transfer.archive import save
from container_kernel.transfer.restore import examine_imported, restore
from tests.few_files import limited, opened
from tests.store.whole import Whole, flip, wait_for_a_tick

pytestmark = pytest.mark.privileged


@pytest.fixture
def whole(tmp_path, entered):
    """A store with all kinds of things in it."""
    whole = Whole(tmp_path / "home", entered)
    wait_for_a_tick()
    yield whole
    whole.store.close()


def checked(whole, full=True):
    """What is damaged or left over, as ``(class, thing)``."""
    compare = examine_imported(whole.store, Reach(whole.store))
    found = check(whole.store, full=full, imported=compare)
    assert {finding.damage for finding in found} <= set(DAMAGES)
    return [finding for finding in found if finding.damage != "unreferenced"]


def test_a_whole_store_has_nothing_wrong(whole):
    assert checked(whole, full=False) == []
    assert checked(whole) == []


@pytest.mark.parametrize("more", range(4))
def test_row_38_where_files_run_out_nothing_is_called_damaged(whole, more):
    """Neither by who looks alone, nor beside threads that took the last files meanwhile."""
    store = whole.store
    before = opened()
    with limited() as few_files:
        few_files(more)
        with none_left():
            assert store.content.verify(whole.one)
        with none_left():
            assert layer.read(whole.base.folder) == whole.base
        with none_left():
            found = examine(whole.base, idmap=store.idmap, userxattr=store.userxattr)
            assert found == []
        with none_left():
            assert checked(whole) == []
    gc.collect()
    assert opened() <= before


@contextlib.contextmanager
def none_left():
    """It works, or the reason is that no more files can be opened."""
    try:
        yield
    except HostError:
        pass
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise


def blob(which):
    return lambda w: w.store.content.path(which(w))


def config_of(w):
    return w.manifest(w.one).config.digest


def layer_blob(w):
    return w.manifest(w.three).layers[0].digest


FLIPS = {
    "manifest": (blob(lambda w: w.one), "blob-changed", lambda w: w.one),
    "config": (blob(config_of), "blob-changed", config_of),
    "layer blob": (blob(layer_blob), "blob-changed", layer_blob),
    "file of a layer": (
        lambda w: w.base.path / "motd",
        "content-changed",
        lambda w: w.base.chain_id,
    ),
    "file of an imported layer": (
        lambda w: w.foreign.path / "imported",
        "content-changed",
        lambda w: w.foreign.chain_id,
    ),
    "record of a layer": (
        lambda w: w.base.folder / "layer.json",
        "record-damaged",
        lambda w: w.base.chain_id.hex[:12],
    ),
}


@pytest.mark.parametrize("kind", FLIPS)
def test_one_flipped_bit_is_named_with_who_needs_it(whole, kind):
    path, damage, name = FLIPS[kind]
    name = str(name(whole))
    flip(path(whole))
    named = [f for f in checked(whole) if f.damage == damage and name in f.thing]
    assert named
    assert named[0].needed_by[0] in {"image one:1", "image three:1"}


def test_a_flipped_file_is_named_itself(whole):
    flip(whole.base.path / "motd")
    flip(whole.foreign.path / "imported")
    found = {finding.what for finding in checked(whole)}
    assert {"/motd", "/imported"} <= found


def test_a_file_that_rotted_without_a_write_condemns_its_layer(whole):
    """Nothing tells which file, where the disk itself changed it: not even its change time."""
    flip(whole.base.path / "motd")
    record = whole.base.folder / "layer.json"
    wait_for_a_tick()
    os.utime(record)  # the layer looks younger than the change
    (found,) = checked(whole)
    assert found.damage == "content-changed"
    assert "nothing tells which" in found.what


@pytest.mark.parametrize(
    ("table", "owner"), [("tags", "one:1"), ("cache", ""), ("notebooks", "/n")]
)
def test_one_flipped_bit_of_a_row_is_named(whole, table, owner):
    column = {"tags": "digest", "cache": "chain_id", "notebooks": "state"}[table]
    path = whole.home / "index.db"
    with closing(sqlite3.connect(path)) as db:
        key = db.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()[0]
        db.execute(
            f"UPDATE {table} SET {column} = replace({column}, '6', '7') WHERE {column} LIKE '%6%'"
        )
        db.commit()
    found = checked(whole)
    assert f"{table}: {key}" in {f.thing for f in found if f.damage == "row-damaged"}


LOSSES = {
    "manifest": (blob(lambda w: w.one), "manifest-missing", lambda w: w.one),
    "config": (blob(config_of), "config-missing", config_of),
    "layer blob": (blob(layer_blob), "blob-missing", layer_blob),
    "layer": (lambda w: w.top.folder, "layer-missing", lambda w: w.top.chain_id),
    "base layer": (lambda w: w.base.folder, "parent-missing", lambda w: w.top.chain_id),
    "tree": (lambda w: w.base.path, "tree-missing", lambda w: w.base.chain_id),
    "record": (
        lambda w: w.base.folder / "layer.json",
        "record-missing",
        lambda w: w.base.chain_id.hex[:12],
    ),
    "file": (lambda w: w.base.path / "motd", "file-removed", lambda w: w.base.chain_id),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_what_is_gone_is_named_with_who_needs_it(whole, kind):
    path, damage, name = LOSSES[kind]
    path, name = path(whole), str(name(whole))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    named = [f for f in checked(whole) if f.damage == damage and name in f.thing]
    assert named
    assert named[0].needed_by


@pytest.mark.parametrize("kind", [*sorted(set(LOSSES) - {"layer blob", "file"}), "bad record"])
def test_running_it_again_brings_back_what_is_gone(whole, kind):
    """Without a repair before it."""
    if kind == "bad record":
        flip(whole.base.folder / "layer.json", at=0)
    else:
        path = LOSSES[kind][0](whole)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    whole.reopen()
    whole.rebuild()
    assert checked(whole) == []


def test_changes_of_metadata_are_told_apart_and_set_back(whole):
    """The time of a file alone condemns nothing."""
    motd, other = whole.base.path / "motd", whole.base.path / "other"
    motd.chmod(0o600)
    os.chown(other, *[whole.store.idmap.to_disk(5)] * 2)
    os.utime(whole.top.path / "more", (5, 5))
    found = checked(whole)
    assert {f.damage for f in found} == {"mode-changed", "owner-changed", "mtime-changed"}
    weights = {f.damage: f.weight for f in found}
    assert weights["mtime-changed"] == "note"
    assert weights["mode-changed"] == weights["owner-changed"] == "damage"
    done = repairs.repair(whole.store, found)
    assert {said for _, said in done} == {"set back as it was"}
    assert checked(whole) == []


def test_changed_content_is_not_taken_for_changed_metadata(whole):
    flip(whole.base.path / "motd")
    (whole.base.path / "other").chmod(0o600)
    assert {f.damage for f in checked(whole)} == {"content-changed", "mode-changed"}


def test_added_files_and_attributes_are_named(whole):
    (whole.base.path / "stranger").touch()
    os.setxattr(whole.top.path / "more", "user.mark", b"x")
    found = {(f.damage, f.what.partition(":")[0]) for f in checked(whole)}
    assert {("file-added", "/stranger"), ("xattr-changed", "/more")} <= found


STRANGERS = {
    "unknown-file": lambda w: (w.home / "content/blobs/sha256/README").touch(),
    "open-to-others": lambda w: (w.home / "content").chmod(0o755),
    "staging-left": lambda w: (w.home / "content/ingest/left").touch(),
    "names-copy": lambda w: (w.home / "tags.json").write_text("{"),
    "blob-size": lambda w: w.store.content.path(layer_blob(w)).write_bytes(b"short"),
    "blob-not-a-file": lambda w: (
        w.store.content.path(layer_blob(w)).unlink(),
        w.store.content.path(layer_blob(w)).mkdir(),
    ),
    "stale-row": lambda w: w.store.index.remember_layer("k", Digest.of(b"gone"), 1.0),
    "manifest-damaged": lambda w: w.store.content.path(w.one).write_bytes(b"{}"),
    "config-damaged": lambda w: w.store.content.path(config_of(w)).write_bytes(b"{}"),
}


@pytest.mark.parametrize("damage", STRANGERS)
def test_even_the_quick_check_names(whole, damage):
    STRANGERS[damage](whole)
    assert damage in {finding.damage for finding in checked(whole, full=False)}


def test_after_repair_and_a_new_run_everything_is_whole(whole, tmp_path):
    """What was bad is set aside; images that have nothing to do with it are not touched."""
    flip(whole.base.path / "motd")
    (whole.top.folder / "layer.json").write_text("{")
    whole.store.content.path(whole.one).write_bytes(b"{}")
    (whole.home / "stranger").touch()
    (whole.home / "content").chmod(0o755)
    repairs.repair(whole.store, checked(whole))
    assert len(os.listdir(whole.home / "quarantine")) == 4
    assert not whole.store.snapshots.get(whole.base.chain_id)
    save(whole.two, tmp_path / "two.tar", store=whole.store)
    whole.reopen()
    whole.rebuild()
    assert checked(whole) == []
    save(whole.one, tmp_path / "one.tar", store=whole.store)


def test_a_bad_imported_layer_comes_back_from_its_blob(whole):
    flip(whole.foreign.path / "imported")
    repairs.repair(whole.store, checked(whole))
    assert restore(whole.store) == [whole.foreign.chain_id]
    assert checked(whole) == []


def test_a_damaged_name_comes_back_from_its_copy(whole):
    with closing(sqlite3.connect(whole.home / "index.db")) as db:
        db.execute("UPDATE tags SET digest = replace(digest, '1', '2') WHERE name = 'one:1'")
        db.commit()
    with pytest.raises(StoreError, match="name one:1 is damaged"):
        whole.store.tags.get("one:1")
    repairs.repair(whole.store, checked(whole))
    assert whole.store.tags.get("one:1") == whole.one


def test_a_flipped_layer_does_not_leave_and_others_do(whole, tmp_path):
    flip(whole.base.path / "motd")
    flip(whole.store.content.path(layer_blob(whole)))
    with pytest.raises(StoreError, match=f"layer {whole.base.diff_id.short} changed"):
        save(whole.one, tmp_path / "one.tar", store=whole.store)
    with pytest.raises(BlobDamaged):
        save(whole.three, tmp_path / "three.tar", store=whole.store)
    save(whole.two, tmp_path / "two.tar", store=whole.store)
    assert sorted(os.listdir(tmp_path)) == ["home", "two.tar"]


def test_nothing_is_frozen_on_a_flipped_layer_and_on_others_it_is(whole):
    """As soon as it is set back, or if only times changed, it can be built upon."""
    motd = whole.base.path / "motd"
    flip(motd)
    os.utime(whole.alone.path / "file")
    whole.reopen()
    with pytest.raises(StoreError, match=r"changed in the store \(/motd\).*\n.*--repair"):
        whole.layer(whole.top, "more", x="x")
    assert whole.store.index.find_layer(Digest.of(b"more").hex) is None
    assert whole.layer(whole.alone, "more", x="x")
    flip(motd)
    assert whole.layer(whole.top, "more", x="x")


@pytest.mark.parametrize("is_named", [True, False])
def test_nothing_is_frozen_on_an_imported_layer_that_was_changed(whole, is_named):
    if not is_named:
        whole.store.tags.remove("three:1")
    flip(whole.foreign.path / "imported")
    whole.reopen()
    guard(whole.store)
    with pytest.raises(StoreError, match=r"changed in the store \(/imported\).*\n.*--repair"):
        whole.layer(whole.foreign, "new", file="new")


def test_nothing_is_frozen_on_a_touched_imported_layer_that_nothing_vouches_for(whole):
    """Its blob is gone. As soon as the image is loaded again, it can be told and built upon."""
    blob = whole.store.content.path(layer_blob(whole))
    data = blob.read_bytes()
    (whole.foreign.path / "imported").chmod(0o644)
    blob.unlink()
    whole.reopen()
    guard(whole.store)
    with pytest.raises(StoreError, match=r"touched.*blob.*missing.*\n.*pull or load") as refusal:
        whole.layer(whole.foreign, "new", file="new")
    assert whole.foreign.diff_id.short in str(refusal.value)
    assert whole.layer(whole.top, "new", file="new")
    whole.store.content.put(data)
    assert whole.layer(whole.foreign, "new", file="new")


def test_an_imported_layer_that_was_only_copied_can_be_built_upon(whole):
    path = whole.foreign.path / "imported"
    path.chmod(0o600)
    path.chmod(0o644)
    whole.reopen()
    guard(whole.store)
    whole.layer(whole.foreign, "new", file="new")


def test_a_copy_of_a_whole_store_can_be_built_upon(whole, entered, tmp_path):
    whole.store.close()
    subprocess.run(["cp", "-a", whole.home, tmp_path / "copy"], check=True)
    whole.home = tmp_path / "copy"
    whole.open()
    assert whole.layer(whole.top, "more", x="x")
    assert checked(whole) == []


def test_one_broken_layer_blocks_no_other(whole):
    (whole.base.folder / "layer.json").write_text("{")
    whole.reopen()
    assert whole.store.snapshots.get(whole.alone.chain_id)
    assert {snapshot.chain_id for snapshot in whole.store.snapshots.walk()} == {
        *(whole.top.chain_id, whole.alone.chain_id, whole.foreign.chain_id)
    }


def test_checking_changes_nothing(whole):
    def picture():
        return {
            p: p.lstat().st_mtime_ns
            for p in whole.home.rglob("*")
            if not {"leases", "active"} & {*p.parts}
        }

    before = picture()
    checked(whole)
    assert picture() == before
