"""The snapshots of this store, under overlayfs, and what a crash leaves of them."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from container_kernel.oci.idmap import IdMap
from container_kernel.runtime import overlay
from container_kernel.store.snapshots import Snapshots
from tests.store.snapshots_contract import SnapshotterContract, diff_id

pytestmark = pytest.mark.privileged


@pytest.fixture
def snapshots(tmp_path, entered):
    """A fresh store's snapshots."""
    return Snapshots(tmp_path, entered.idmap)


@pytest.fixture
def mounted(snapshots, tmp_path, entered):
    """Do something in the merged file system of an active snapshot."""

    def mounted(active, action):
        target = tmp_path / "merged"
        target.mkdir(exist_ok=True)
        (tmp_path / "init").mkdir(exist_ok=True)
        lowers = [*(one.path for one in snapshots.chain(active.parent)), tmp_path / "init"]
        overlay.mount(
            snapshots.folder,
            lowers,
            active.upper,
            active.work,
            target,
            userxattr=entered.is_rootless,
        )
        try:
            return action(target)
        finally:
            overlay.unmount(target)

    return mounted


@pytest.fixture
def write(mounted):
    """Write a file of an active snapshot."""
    return lambda active, name, text: mounted(active, lambda root: (root / name).write_text(text))


@pytest.fixture
def read(mounted):
    """Read a file of an active snapshot."""
    return lambda active, name: mounted(active, lambda root: (root / name).read_text())


class TestOverlay(SnapshotterContract):
    """The overlay driver keeps the contract."""


def test_frozen_trees_are_renamed_not_copied(snapshots):
    active = snapshots.prepare(None)
    (active.upper / "file").write_text("x")
    inode = (active.upper / "file").stat().st_ino
    frozen = snapshots.commit(active, diff_id("a"), 1, "a")
    assert (frozen.path / "file").stat().st_ino == inode


_OWNER = """
import os, sys
from pathlib import Path
from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap
from container_kernel.store.snapshots import Snapshots
snapshots = Snapshots(Path(sys.argv[1]), IdMap.identity())
active = snapshots.prepare(None)
(active.upper / "half").write_text("made")
print("ready", flush=True)
if sys.argv[2] == "commit":
    sys.stdin.read(1)
    snapshots.commit(active, Digest.of(b"a"), 1, "a")
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    """Start a process that owns an active snapshot."""
    started = []

    def start(what):
        process = subprocess.Popen(
            [sys.executable, "-c", _OWNER, str(tmp_path), what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_owner_left_is_swept(owner, tmp_path):
    process = owner("wait")
    Snapshots(tmp_path, IdMap.identity()).sweep()
    assert len(os.listdir(tmp_path / "active")) == 1  # its owner lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    Snapshots(tmp_path, IdMap.identity()).sweep()
    assert os.listdir(tmp_path / "active") == []


_CALLS = ["fsync", "syncfs", "rename", "unlink", "rmdir", "unlinkat"]


@pytest.mark.parametrize("call", _CALLS)
def test_killed_anywhere_in_a_commit_the_layer_is_whole_or_absent(call, tmp_path):
    """A short sample of the kill sweep: SIGKILL at the n-th call of its kind."""
    for when in (1, 2, 3):
        home = tmp_path / f"{call}-{when}"
        home.mkdir()
        subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", "/dev/null", "-e"),
                f"inject={call}:signal=KILL:when={when}",
                *(sys.executable, "-c", _OWNER, str(home), "commit"),
            ],
            input=b"go",
            stdout=subprocess.DEVNULL,
            check=False,
        )
        snapshots = Snapshots(home, IdMap.identity())
        snapshots.sweep()
        for found in snapshots.walk():
            assert (found.path / "half").read_text() == "made"
            assert snapshots.get(found.chain_id) == found
        assert os.listdir(home / "active") == []


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["syncfs", "fsync", "rename"])
def test_what_the_disk_refused_is_not_there(call, error, tmp_path):
    """Nor does a second try find it and take it for frozen: see "fsyncgate"."""
    done = subprocess.run(
        [
            *(
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                f"inject={call}:error={error}:when=1",
            ),
            *(sys.executable, "-c", _OWNER, str(tmp_path), "commit"),
        ],
        input=b"go",
        capture_output=True,
        check=False,
    )
    assert b"StoreError: cannot write" in done.stderr
    snapshots = Snapshots(tmp_path, IdMap.identity())
    assert snapshots.walk() == []
    snapshots.sweep()
    assert os.listdir(tmp_path / "active") == []


def test_folders_deeper_than_python_follows_are_removed(snapshots):
    active = snapshots.prepare(None)
    fd = os.open(active.upper, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    snapshots.remove(active)
    assert not active.path.exists()


def test_many_writers_of_one_layer_all_succeed(snapshots):
    results, actives = [], [snapshots.prepare(None) for _ in range(8)]

    def commit(active):
        results.append(snapshots.commit(active, diff_id("same"), 1, "x"))

    threads = [threading.Thread(target=commit, args=(active,)) for active in actives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.path for result in results}) == 1
    assert len(results) == 8


def test_short_names_that_collide_are_told_apart(snapshots):
    frozen = snapshots.commit(snapshots.prepare(None), diff_id("a"), 1, "a")
    record = json.loads((frozen.path.parent / "layer.json").read_text())
    other = record["chain_id"][:-1] + ("0" if record["chain_id"][-1] == "f" else "f")
    record |= {"chain_id": other, "diff_id": other}
    (frozen.path.parent / "layer.json").write_text(json.dumps(record))
    snapshots = Snapshots(snapshots.folder.parent, IdMap.identity())
    assert snapshots.get(diff_id("a")) is None
    again = snapshots.commit(snapshots.prepare(None), diff_id("a"), 1, "again")
    assert snapshots.get(diff_id("a")) == again


def test_a_layer_that_cannot_be_used_is_a_miss_and_makes_room(snapshots):
    """It is moved aside, not deleted, by whoever builds it again."""
    frozen = snapshots.commit(snapshots.prepare(None), diff_id("a"), 1, "a")
    home = snapshots.folder.parent
    for damage in (
        lambda: (frozen.folder / "layer.json").write_text("{"),
        lambda: (frozen.folder / "layer.json").unlink(),
        lambda: frozen.path.rmdir(),
    ):
        damage()
        fresh = Snapshots(home, IdMap.identity())
        assert fresh.get(diff_id("a")) is None
        assert fresh.walk() == []
        fresh.commit(fresh.prepare(None), diff_id("a"), 1, "again")
        assert Snapshots(home, IdMap.identity()).get(diff_id("a")).created_by == "again"
    assert len(os.listdir(home / "quarantine")) == 3
