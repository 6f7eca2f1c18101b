"""What is collected beside images: small files, packages of locks, opened bundles; and how."""

import fcntl
import json
import os
import time

import pytest

from container_kernel.build import lock, lock_roots
from container_kernel.build.journal import Journal
from container_kernel.oci.digest import Digest
from container_kernel.store import opened
from container_kernel.store.check import check
from container_kernel.store.collect import collect
from container_kernel.store.leases import folder_lock
from container_kernel.store.places import INPUTS, KNOWN
from container_kernel.store.plan import Planner
from container_kernel.store.store import Store
from container_kernel.store.usage import usage
from container_kernel.transfer.packed import Packed
from tests.store.whole import Whole

pytestmark = pytest.mark.privileged
DAY_S = 86400.0
ANY_AGE_S = 1e-6


@pytest.fixture
def whole(tmp_path, entered):
    """A store with all kinds of things in it, which no process needs any more."""
    whole = Whole(tmp_path / "home", entered)
    whole.reopen()
    yield whole
    whole.store.close()


@pytest.fixture
def planned(monkeypatch):
    """Calls what it is given between a collector's planning and its first removal."""
    plan = Planner.plan

    def give(meanwhile):
        def and_then(self):
            made = plan(self)
            meanwhile()
            return made

        monkeypatch.setattr(Planner, "plan", and_then)

    return give


def make_old(path, days):
    when = time.time() - days * DAY_S
    os.utime(path, (when, when))


def names(things):
    return {thing.name for thing in things}


def records(whole):
    """A small file of each kind, of something that is there and of something that is not."""
    journal, packed, gone = Journal(whole.home), Packed(whole.store), Digest.of(b"gone")
    journal.write(Digest.of(b"top").hex, {}, whole.top.diff_id, [])
    journal.write("f" * 64, {}, gone, [])
    packed.remember("registry:5000", "mine", gone)
    for number, diff_id in enumerate((whole.top.diff_id, gone)):
        packed._record(diff_id, "zstd").write_text("{}")
        for name, said in (
            (f"history/{number}.json", {}),
            (f"forecasts/{number}.json", {"chain_id": str((whole.top.chain_id, gone)[number])}),
        ):
            (whole.home / name).parent.mkdir(exist_ok=True)
            (whole.home / name).write_text(json.dumps(said))
    there = whole.home.parent / "there.ipynb"
    there.write_text("{}")
    whole.store.index.remember_notebook(str(there), whole.memory(whole.one))
    name = Digest.of(str(there).encode()).hex[:24]
    (whole.home / "history/0.json").rename(whole.home / f"history/{name}.json")
    (whole.home / "journal/.draft.json.1234").write_text("{")
    return [path for folder in ("journal", "packed", "history", "forecasts")
            for path in (whole.home / folder).rglob("*") if path.is_file()]  # fmt: skip


# ---------------------------------------------------------------- small files


def test_small_files_go_when_what_they_are_about_is_gone_for_long(whole):
    paths = records(whole)
    for path in paths:
        make_old(path, 89)
    assert names(collect(whole.store, dry_run=True).victims) == {"journal/.draft.json.1234"}
    for path in paths:
        make_old(path, 91)
    dry = collect(whole.store, dry_run=True)
    gone = Digest.of(b"gone").hex
    assert names(dry.victims) == {
        *(f"journal/{'f' * 64}.json", "journal/.draft.json.1234", "history/1.json"),
        *(f"packed/{gone}.zstd", f"packed/at/registry%3A5000/{gone}", "forecasts/1.json"),
    }
    assert all(thing.why for thing in dry.victims)
    assert names(collect(whole.store).victims) == names(dry.victims)
    assert not any((whole.home / name).exists() for name in names(dry.victims))
    assert Journal(whole.home).inputs(Digest.of(b"top").hex, whole.top.diff_id) == []
    assert collect(whole.store).victims == ()


def test_no_age_takes_a_small_file_that_may_be_being_written(whole):
    paths = records(whole)
    assert collect(whole.store, older_than_s=ANY_AGE_S).victims == ()
    for path in paths:
        make_old(path, 2)
    assert len(collect(whole.store, older_than_s=ANY_AGE_S).victims) == 6


def test_a_small_file_that_is_written_again_meanwhile_stays(whole, planned):
    path = whole.home / "journal" / f"{'f' * 64}.json"
    gone = Digest.of(b"gone")
    Journal(whole.home).write("f" * 64, {}, gone, [])
    make_old(path, 91)
    planned(lambda: Journal(whole.home).write("f" * 64, {}, gone, [{"name": "new"}]))
    assert collect(whole.store).victims == ()
    assert Journal(whole.home).inputs("f" * 64, gone) == [{"name": "new"}]


# ---------------------------------------------------------------- packages kept for locks


@pytest.fixture
def kept(whole):
    """A package that a lock names and one that none does, both kept, both in apt's cache too."""
    cache = whole.store.cache_folder("apt")
    (cache / "archives").mkdir()
    inputs = []
    for name in ("locked", "loose"):
        data = name.encode() * 100_000
        (cache / "archives" / name).write_bytes(data)
        inputs.append({"kind": "deb", "file": name, "name": name, "digest": str(Digest.of(data))})
    Journal(whole.home).keep(inputs, cache)
    whole.reopen()
    return [Digest(one["digest"]).hex for one in inputs]


def lock_of(whole, digest):
    """A lock that names that package, and others of kinds that are not kept."""
    one = {"kind": "deb", "name": "n", "version": "1", "file": "n.deb", "size": 1, "digest": digest}
    one["architecture"] = "all"
    others = {"kind": "npm", "name": "n", "version": "1"}, one | {"kind": "python"}
    step = lock.LockedStep("", "apt", 1, "k", whole.top.diff_id, 1, (*others, one))
    stage = lock.LockedStage("debian", whole.base.chain_id, (step,), whole.one)
    return lock.Lock({"main": stage}, "x86_64", "us")


def locks(whole, digest):
    """What the locks of the notebooks name that were built in the store: one has a lock."""
    notebook = whole.home.parent / "n.ipynb"
    notebook.write_text("{}")
    lock.path_of(notebook).write_text(lock_of(whole, digest).to_text())
    for path in (notebook, whole.home.parent / "missing.ipynb"):
        whole.store.index.remember_notebook(str(path), whole.memory(whole.one))
    return lock_roots.packages(whole.store)


def test_a_lock_that_the_store_saw_keeps_what_it_names_when_its_notebook_is_moved(whole, kept):
    locked, loose = kept
    notebook = whole.home.parent / "moved.ipynb"
    lock_roots.note(whole.store, notebook, lock_of(whole, f"sha256:{locked}"))
    assert lock_roots.packages(whole.store) == {locked}
    notebook.write_text("{}")  # it is there again, and its lock names something else
    lock.path_of(notebook).write_text(lock_of(whole, f"sha256:{loose}").to_text())
    assert lock_roots.packages(whole.store) == {loose}
    lock.path_of(notebook).write_text("<<<<<<< mine\n")  # it cannot be read: the note counts
    assert lock_roots.packages(whole.store) == {locked}
    (note,) = (whole.home / "locks").iterdir()
    make_old(note, 91)
    assert collect(whole.store).victims == ()
    notebook.unlink()
    assert names(collect(whole.store).victims) == {f"locks/{note.name}"}
    assert lock_roots.packages(whole.store) == set()


def test_what_goes_says_that_no_lock_is_known_to_name_it(whole, kept):
    make_old(whole.home / INPUTS / kept[0], 40)
    (thing,) = collect(whole.store, older_than_s=30 * DAY_S).victims
    assert thing.why == "not used for 40 days; no lock that this store has seen names it"


def test_packages_go_by_age_but_for_those_that_a_lock_names(whole, kept):
    locked, loose = kept
    wanted = locks(whole, f"sha256:{locked}")
    assert wanted == {locked}
    for name in kept:
        make_old(whole.home / INPUTS / name, 40)
    assert collect(whole.store, locked=wanted).victims == ()
    plan = collect(whole.store, older_than_s=30 * DAY_S, locked=wanted)
    assert names(plan.victims) == {loose}
    assert [(thing.name, thing.why) for thing in plan.kept] == [(locked, "a lock names it")]
    assert [path.name for path in (whole.home / INPUTS).iterdir()] == [locked]


def test_a_budget_takes_packages_of_locks_last(whole, kept):
    locked = kept[0]
    make_old(whole.home / INPUTS / locked, 400)
    plan = collect(whole.store, max_bytes=1, locked=frozenset({locked}), dry_run=True)
    assert [thing.name for thing in plan.victims][-1] == locked
    total = plan.total
    plan = collect(whole.store, max_bytes=total - 100_000, locked=frozenset({locked}))
    assert locked not in names(plan.victims)


def test_a_package_that_is_used_meanwhile_stays(whole, kept, planned):
    for name in kept:
        make_old(whole.home / INPUTS / name, 40)
    place = whole.home.parent / "downloads"
    place.mkdir()
    one = {"kind": "deb", "file": "locked", "digest": f"sha256:{kept[0]}"}
    planned(lambda: Journal(whole.home).bring([one], place))
    assert names(collect(whole.store, older_than_s=30 * DAY_S).victims) == {kept[1]}
    assert (whole.home / INPUTS / kept[0]).exists()


def test_bytes_with_two_names_count_once(whole, kept):
    found = usage(whole.store)
    assert found.downloads[INPUTS] == pytest.approx(1_100_000, rel=0.02)
    assert found.downloads["apt"] < 20_000


# ---------------------------------------------------------------- opened bundles


@pytest.fixture
def bundle(whole, entered):
    """A bundle that was opened, not used for 40 days."""

    def make(name):
        place = opened.folder(whole.home) / name
        (place / "notebook").mkdir(parents=True)
        (place / "notebook/n.ipynb").write_text("{}")
        inner = Store(place / "store", entered.idmap, userxattr=entered.is_rootless)
        inner.tags.set("main", whole.one)
        inner.close()
        time.sleep(0.01)  # the clock of files has ticks
        (place / opened.NAME).write_text("n.ipynb")
        make_old(place, 40)
        return place

    return make


def test_opened_bundles_go_by_age_unless_something_in_them_was_changed(whole, bundle):
    plain, changed, named, data, used = map(bundle, ("plain", "changed", "named", "data", "used"))
    time.sleep(0.01)
    (changed / "notebook/result").write_text("mine")
    (named / "store/tags.json").write_text("{}")
    (data / "store/volumes/mine").mkdir(parents=True)
    assert opened.use(used)
    assert collect(whole.store, max_bytes=10**9).victims == ()
    plan = collect(whole.store, older_than_s=30 * DAY_S)
    assert names(plan.victims) == {"plain"}
    assert {thing.name: thing.why for thing in plan.kept} == {
        "changed": "something in it was changed since it was opened",
        "named": "something in it was changed since it was opened",
        "data": "it holds volumes",
    }
    assert opened.places(whole.home) == [changed, data, named, used]
    assert not plain.exists()
    assert not opened.use(plain)


def test_an_opened_bundle_in_use_stays(whole, bundle, entered, planned):
    held, used = bundle("held"), bundle("used")
    store = Store(held / "store", entered.idmap, userxattr=entered.is_rootless)
    store.leases.hold("layer mine")
    planned(lambda: opened.use(used))
    plan = collect(whole.store, older_than_s=30 * DAY_S)
    assert plan.victims == ()
    assert [thing.why for thing in plan.kept] == ["a running process needs it"]
    store.close()
    assert names(collect(whole.store, older_than_s=30 * DAY_S).victims) == {"held"}


# ---------------------------------------------------------------- the gate, and what changes before


def test_nobody_waits_while_it_is_planned(whole, planned):
    def is_open():
        with folder_lock(whole.store.leases.folder, fcntl.LOCK_SH | fcntl.LOCK_NB):
            asked.append(True)

    asked = []
    planned(is_open)
    collect(whole.store, older_than_s=ANY_AGE_S)
    assert asked


MEANWHILE = {
    "named": lambda whole, other: other.tags.set("again:1", whole.three),
    "remembered": lambda whole, other: other.index.remember_notebook(
        "/m.ipynb", whole.memory(whole.three)
    ),
    "leased": lambda whole, other: other.find_image(str(whole.three)),
    "used": lambda whole, other: [
        os.utime(path) for path in (whole.foreign.folder, other.content.path(whole.three))
    ],
}


@pytest.mark.parametrize("deed", MEANWHILE)
def test_what_is_needed_since_it_was_planned_stays(whole, entered, planned, deed):
    other = Store(whole.home, entered.idmap, userxattr=entered.is_rootless)
    whole.store.tags.remove("three:1")
    whole.reopen()
    planned(lambda: MEANWHILE[deed](whole, other))
    went = names(collect(whole.store, older_than_s=ANY_AGE_S).victims)
    assert not went & {str(whole.three), str(whole.foreign.chain_id)}
    assert other.image_config(other.manifest(whole.three))
    assert [one for one in check(whole.store, full=True) if one.weight == "damage"] == []
    other.close()


def test_what_a_new_layer_stands_on_stays(whole, planned):
    """Frozen by a process that ended before anything was taken away."""
    whole.store.tags.remove("two:1")
    whole.reopen()

    def freeze():
        builder = Whole.__new__(Whole)
        builder.home, builder._entered = whole.home, whole._entered
        store = builder.open()
        builder.layer(whole.alone, "new", file="new")
        store.close()

    planned(freeze)
    went = names(collect(whole.store, older_than_s=ANY_AGE_S).victims)
    assert str(whole.alone.chain_id) not in went
    assert [one for one in check(whole.store) if one.weight == "damage"] == []


# ---------------------------------------------------------------- all there is


def test_every_byte_of_a_store_is_told(whole, kept):
    records(whole)
    (whole.home / "volumes/data").mkdir(parents=True)
    (whole.home / "volumes/data/file").write_bytes(b"x" * 100_000)
    whole.store.content.put(b"y" * 50_000)
    found = usage(whole.store)
    assert found.volumes["data"] >= 100_000
    assert found.records > 0
    blocks = {path.lstat().st_ino: path.lstat().st_blocks * 512 for path in whole.home.rglob("*")}
    blobs = sum(1 for _ in whole.store.content.files())
    assert abs(sum(blocks.values()) - found.total) <= 4096 * (blobs + 12)
    assert {path.name for path in whole.home.iterdir()} <= KNOWN
