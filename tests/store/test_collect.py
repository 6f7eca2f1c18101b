"""What is collected, in which order, and what never is."""

import os
import subprocess
import sys
import time

import pytest

from container_kernel.errors import StoreError
from container_kernel.oci.digest import Digest
from container_kernel.store import leases
from container_kernel.store.check import check
from container_kernel.store.collect import collect
from container_kernel.store.leases import Leases, is_locked
from container_kernel.store.store import Store
from container_kernel.store.usage import usage
from container_kernel.transfer.archive import save
from tests.store.whole import Whole

pytestmark = pytest.mark.privileged
DAY_S = 86400.0


@pytest.fixture
def whole(tmp_path, entered):
    """A store with all kinds of things in it, which no process needs any more."""
    whole = Whole(tmp_path / "home", entered)
    whole.reopen()
    yield whole
    whole.store.close()


def make_old(whole, path, days):
    """Let something look unused for so long."""
    when = time.time() - days * DAY_S
    os.utime(path, (when, when))


def names(plan):
    return {victim.name for victim in plan.victims}


def test_what_is_named_cached_or_remembered_stays(whole):
    assert collect(whole.store).victims == ()


def test_what_nothing_refers_to_goes(whole):
    whole.store.tags.remove("three:1")
    whole.reopen()
    plan = collect(whole.store)
    parts = [str(whole.three), str(whole.foreign.chain_id)]
    assert set(parts) < names(plan)
    assert {victim.why for victim in plan.victims} == {"nothing refers to it"}
    assert whole.store.snapshots.get(whole.foreign.chain_id) is None
    assert not whole.store.content.has(whole.three)
    assert check(whole.store, full=True) == []


def test_a_dry_run_removes_nothing_and_says_the_same(whole):
    whole.store.tags.remove("three:1")
    whole.reopen()
    said = collect(whole.store, dry_run=True)
    assert whole.store.snapshots.get(whole.foreign.chain_id)
    whole.reopen()
    assert names(collect(whole.store)) == names(said)


def test_old_caches_go_and_names_stay(whole):
    """A layer is as young as the youngest that stands on it."""
    whole.store.tags.remove("one:1")
    whole.store.index.remember_notebook("/n.ipynb", whole.memory(whole.two))
    for layer in (whole.base, whole.alone, whole.foreign):
        make_old(whole, layer.folder, 40)
    whole.reopen()
    assert collect(whole.store, older_than_s=30 * DAY_S).freed == pytest.approx(0, abs=2000)
    make_old(whole, whole.top.folder, 35)
    plan = collect(whole.store, older_than_s=30 * DAY_S)
    layers = [victim.name for victim in plan.victims if victim.kind == "layer"]
    assert layers == [str(whole.top.chain_id), str(whole.base.chain_id)]
    assert plan.victims[-1].why == "not used for 35 days"
    assert whole.store.index.find_layer(Digest.of(b"top").hex) is None
    assert check(whole.store) == []


def test_a_budget_takes_the_oldest_first(whole):
    """Down to the budget, and no further."""
    for number in range(3):
        layer = whole.layer(None, f"big{number}", blob=f"{number}" * 1_000_000)
        make_old(whole, layer.folder, 10 - number)
    whole.reopen()
    total = collect(whole.store, dry_run=True).total
    plan = collect(whole.store, max_bytes=total - 1_500_000)
    assert [victim.what for victim in plan.victims] == ["big0", "big1"]
    assert "budget" in plan.victims[0].why
    assert usage(whole.store).cached == pytest.approx(1_000_000, rel=0.1)


def test_a_notebook_whose_image_went_is_no_damage(whole):
    whole.store.tags.remove("one:1")
    for layer in (whole.base, whole.top):
        make_old(whole, layer.folder, 40)
    make_old(whole, whole.store.content.path(whole.one), 40)
    whole.reopen()
    assert str(whole.top.chain_id) in names(collect(whole.store, older_than_s=30 * DAY_S))
    assert check(whole.store) == []
    assert '"cells"' in whole.store.index.notebook("/n.ipynb")


def test_download_caches_and_downloads_go_by_age(whole):
    whole.store.cache_folder("pip").joinpath("wheel").write_bytes(b"x" * 5000)
    blob = whole.store.content.put(b"downloaded")
    whole.reopen()
    assert collect(whole.store).victims == ()
    make_old(whole, whole.home / "downloads/pip", 40)
    make_old(whole, whole.store.content.path(blob.digest), 40)
    assert names(collect(whole.store, older_than_s=30 * DAY_S)) == {"pip", str(blob.digest)}


def test_what_this_process_found_stays(whole, entered):
    other = Store(whole.home, entered.idmap, userxattr=entered.is_rootless)
    whole.store.tags.remove("three:1")
    whole.store.tags.remove("two:1")
    assert other.find_image(str(whole.three))
    assert other.snapshots.get(whole.alone.chain_id)
    other.cache_folder("apt")
    plan = collect(whole.store, older_than_s=0.000001)
    assert not names(plan) & {str(whole.three), str(whole.foreign.chain_id), "apt"}
    assert str(whole.alone.chain_id) not in names(plan)
    assert plan.in_use > 3
    other.close()
    assert str(whole.alone.chain_id) in names(collect(whole.store, older_than_s=0.000001))


_HOLDER = """
import sys
from pathlib import Path
from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap
from container_kernel.store.store import Store
idmap = eval(sys.argv[3])
store = Store(Path(sys.argv[1]), idmap, userxattr=sys.argv[4] == "True")
assert store.snapshots.get(Digest(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lease_ends_with_its_process_however_that_ends(whole, entered):
    whole.store.tags.remove("three:1")
    whole.reopen()
    argv = [str(whole.home), str(whole.foreign.chain_id), repr(entered.idmap)]
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, *argv, str(entered.is_rootless)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    assert str(whole.foreign.chain_id) not in names(collect(whole.store, older_than_s=1e-6))
    process.kill()
    process.communicate()
    assert str(whole.foreign.chain_id) in names(collect(whole.store, older_than_s=1e-6))
    assert len(os.listdir(whole.home / "leases")) <= 1 + 1  # `readers`, and our own


def test_what_a_named_image_needs_must_be_known(whole):
    whole.store.content.path(whole.one).write_bytes(b"{}")
    with pytest.raises(StoreError, match="check --repair"):
        collect(whole.store)


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_jumps_takes_nothing_that_is_needed(whole, years, tmp_path):
    def clock():
        return time.time() + years * 365 * DAY_S

    collect(whole.store, older_than_s=30 * DAY_S, clock=clock)
    if years < 0:  # everything was used in the future: nothing is old
        assert whole.store.snapshots.get(whole.alone.chain_id)
    for digest in (whole.one, whole.two, whole.three):
        save(digest, tmp_path / "out.tar", store=whole.store)


def test_bytes_are_shared_out(whole):
    whole.image("both:1", whole.base)
    found = usage(whole.store)
    by_name = {image.names[0]: image for image in found.images}
    assert by_name["one:1"].shared == by_name["both:1"].shared > 0
    assert by_name["two:1"].shared == 0
    assert found.named == sum(i.own for i in found.images) + by_name["both:1"].shared
    assert found.unreferenced == 0
    assert found.total == found.named + found.cached + found.working


def test_leases_of_dead_processes_are_swept_when_there_are_many(store):
    for number in range(40):
        (store.leases.folder / f"dead{number}").write_text("layer x\n")
    store.leases.hold("layer mine")
    store.leases.sweep()
    assert store.leases.held() == {"layer mine", ""}
    assert not [path for path in store.leases.folder.iterdir() if path.name.startswith("dead")]


def test_a_process_may_let_go_while_leases_are_read(store, monkeypatch):
    """Its file goes between two looks at it."""

    def look_and_let_go(path):
        found = is_locked(path)
        if path.name != "readers":
            other.close()
        return found

    other = Leases(store.leases.folder)
    other.hold("layer x")
    monkeypatch.setattr(leases, "is_locked", look_and_let_go)
    assert store.leases.held() == frozenset()
