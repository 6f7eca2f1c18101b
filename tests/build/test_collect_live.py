"""Collecting beside a container that runs, and beside a notebook that is being built."""

import os
import time

import pytest

from container_kernel.build.step import Base, Shell
from container_kernel.errors import StoreError
from container_kernel.record import replace
from container_kernel.runtime.relaxed import Relaxed
from container_kernel.runtime.wish import Wish
from container_kernel.store.check import check
from container_kernel.store.collect import collect
from container_kernel.store.store import Store
from tests.read_only import mount_read_only

pytestmark = pytest.mark.privileged
EVERYTHING = {"older_than_s": 1e-9}


@pytest.fixture
def home(tmp_path):
    """The folder of a store of this test alone."""
    return tmp_path / "home"


@pytest.fixture
def bench(make_bench, settings, home):
    """A workbench with an image in a store of its own."""
    bench = make_bench(replace(settings, home=home))
    bench.build("base", Base("busybox"))
    bench.build("a", Shell("mkdir /data; echo old > /data/file", net="none"))
    return bench


@pytest.fixture
def other(home, entered):
    """The store, as another process opens it."""

    def other():
        opened.append(Store(home, entered.idmap, userxattr=entered.is_rootless))
        return opened[-1]

    opened = []
    yield other
    for store in opened:
        store.close()


def wait_for(path):
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_running_container_keeps_its_image_whatever_becomes_of_its_name(bench, other, folder):
    image = bench.image()
    bench.tag("mine:1")
    live = bench.workbench.fresh(image)
    wait = "while [ ! -e /work/go ]; do sleep 0.01; done"
    live.start(["/bin/sh", "-c", f"{wait}; cp /data/file /work/new; mv /work/new /work/said"])
    bench.build("a", Shell("echo new > /file", net="none"))
    bench.tag("mine:1")
    store = other()
    store.tags.remove("mine:1")
    plan = collect(store, **EVERYTHING)
    assert plan.in_use > 0
    (folder / "go").touch()
    wait_for(folder / "said")
    live.close()
    assert (folder / "said").read_text() == "old\n"
    assert store.snapshots.get(image.chain_id)


def test_what_a_container_writes_is_no_damage_below_it(bench, other):
    """Its own layer takes everything; the frozen ones stay what they are."""
    wish = Wish(relaxed=Relaxed(as_root=True), limits=bench.workbench.limits())
    live = bench.workbench.fresh(bench.image(), wish)
    script = "while :; do echo x >> /data/file; mv /data /d; mv /d /data; rm -f /bin/ls; done"
    live.start(["/bin/sh", "-c", script])
    store = other()
    for _ in range(3):
        assert check(store, full=True) == []
    live.close()


def test_a_layer_in_use_is_not_lost_by_deleting_names_twice(bench, other):
    image = bench.image()
    bench.tag("mine:1")
    store = other()
    assert store.tags.remove("mine:1")
    assert not store.tags.remove("mine:1")
    collect(store, **EVERYTHING)
    assert bench.output("cat /data/file") == "old\n"
    bench.workbench.store.tags.set("again:1", image.digest)
    assert check(store, full=True) == []


def test_what_was_collected_is_built_again_as_it_was(bench, make_bench, settings, home, other):
    digest = bench.image().digest
    bench.workbench.close()
    store = other()
    collect(store, **EVERYTHING)
    assert store.snapshots.walk() == []
    again = make_bench(replace(settings, home=home))
    again.build("base", Base("busybox"))
    again.build("a", Shell("mkdir /data; echo old > /data/file", net="none"))
    assert again.image().digest == digest


def test_a_read_only_store_runs_and_does_not_build(bench, make_bench, settings, home, entered):
    from container_kernel import syscalls

    bench.image()
    bench.tag("mine:1")
    bench.workbench.close()
    mount_read_only(home)
    readonly = make_bench(replace(settings, home=home))
    try:
        readonly.build("base", Base("busybox"))
        readonly.build("a", Shell("mkdir /data; echo old > /data/file", net="none"))
        said = readonly.output("cat /data/file; echo new > /tmp/new; cat /tmp/new")
        assert said == "old\nnew\n"
        with pytest.raises(StoreError, match="cannot"):
            readonly.build("b", Shell("echo more > /more", net="none"))
        with pytest.raises(StoreError, match="readonly"):
            readonly.tag("new:1")
    finally:
        readonly.workbench.close()
        for place in (home / "active", home):
            syscalls.umount(str(place), syscalls.MNT_DETACH)
    assert os.access(home / "active", os.W_OK)
