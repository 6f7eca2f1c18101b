"""The store's folder: whose it is, of which version, on what file system; and many at once."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

from container_kernel import syscalls
from container_kernel.errors import StoreError
from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap
from container_kernel.store import folder, layer
from container_kernel.store.check import check
from container_kernel.store.layer import Snapshot
from container_kernel.store.store import Store
from tests.read_only import mount_read_only
from tests.store.whole import Whole

pytestmark = pytest.mark.privileged


@pytest.fixture
def whole(tmp_path, entered):
    """A store with all kinds of things in it."""
    whole = Whole(tmp_path / "home", entered)
    yield whole
    whole.store.close()


def picture(home):
    """Every file with its bytes, mode and time."""
    return {
        path: (path.lstat().st_mode, path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in home.rglob("*")
    }


# ---------------------------------------------------------------- versions


def test_a_newer_store_is_refused_and_not_a_byte_changed(whole):
    whole.store.close()
    record = whole.home / "store.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 99}))
    before = picture(whole.home)
    with pytest.raises(StoreError, match="version 99, this program knows"):
        whole.open()
    assert picture(whole.home) == before


def test_a_store_of_the_first_version_is_brought_up(whole):
    make_old(whole)
    store = whole.open()
    assert json.loads((whole.home / "store.json").read_text())["version"] == folder.VERSION
    assert check(store) == []


_OPEN = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from container_kernel.oci.idmap import IdMap
from container_kernel.store.folder import open_folder
open_folder(Path({home!r}), {idmap!r})
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["mkdir", "write", "fsync", "rename"])
def test_killed_while_it_is_brought_up_the_next_one_finishes(whole, entered, call):
    for when in range(1, 12):
        make_old(whole)
        code = _OPEN.format(path=sys.path, home=str(whole.home), idmap=entered.idmap)
        inject = f"inject={call}:signal=KILL:when={when}"
        strace = ["strace", "-qq", "-o", "/dev/null", "-e", inject]
        done = subprocess.run([*strace, sys.executable, "-I", "-S", "-c", code])
        assert json.loads((whole.home / "store.json").read_text())["version"] in (1, folder.VERSION)
        assert check(whole.open()) == []
        if done.returncode == 0:
            break


def make_old(whole):
    """As the first version left it."""
    whole.store.close()
    for name in ("leases", "trash", "quarantine"):
        shutil.rmtree(whole.home / name, ignore_errors=True)
    record = whole.home / "store.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 1}))


# ---------------------------------------------------------------- owners and modes


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_can_read_what_is_in_it(tmp_path, entered, umask):
    """Setuid files of images are behind a folder that only the owner can enter."""
    before = os.umask(umask)
    try:
        whole = Whole(tmp_path / "home", entered)
    finally:
        os.umask(before)
    (whole.base.path / "motd").chmod(0o4755)
    whole.store.close()
    modes = {p: stat.S_IMODE(p.lstat().st_mode) for p in [whole.home, *whole.home.iterdir()]}
    folders = {path: mode for path, mode in modes.items() if path.is_dir()}
    assert set(folders.values()) == {0o700}
    blobs = (whole.home / "content/blobs/sha256").iterdir()
    assert {stat.S_IMODE(blob.stat().st_mode) for blob in blobs} == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in whole.home.glob("snapshots/*")} == {0o700}


def test_a_store_of_somebody_else_is_refused_by_name_and_not_touched(whole, entered):
    if entered.is_rootless:
        pytest.skip("only root can give a folder away")
    whole.store.close()
    os.chown(whole.home, 1, 1)
    whole.home.chmod(0o755)
    before = picture(whole.home)
    with pytest.raises(StoreError, match=r"belongs to another user, daemon \(uid 1\)"):
        whole.open()
    assert picture(whole.home) == before
    assert whole.home.stat().st_uid == 1
    assert stat.S_IMODE(whole.home.stat().st_mode) == 0o755
    os.chown(whole.home, 0, 0)


# ---------------------------------------------------------------- a file system that is read-only


@pytest.fixture
def readonly(whole):
    """The store on a mount that nobody can write through."""
    whole.store.close()
    home = str(whole.home)
    mount_read_only(home)
    yield whole.open()
    whole.store.close()
    for place in (f"{home}/active", home):
        with contextlib.suppress(OSError):
            syscalls.umount(place, syscalls.MNT_DETACH)
    whole.open()


def test_a_store_that_cannot_be_written_can_be_read_and_refuses_cleanly(whole, readonly):
    assert readonly.is_readonly
    assert readonly.tags.list()["one:1"] == whole.one
    assert check(readonly) == []
    active = readonly.snapshots.prepare(whole.base.chain_id)
    (active.upper / "new").write_text("x")
    for write in (
        lambda: readonly.tags.set("new:1", whole.one),
        lambda: readonly.content.put(b"new"),
        lambda: readonly.snapshots.commit(active, whole.alone.chain_id, 1, "new"),
        lambda: readonly.cache_folder("new"),
        lambda: readonly.building("0" * 64, lambda: None).__enter__(),
    ):
        with pytest.raises(StoreError, match=r"cannot|readonly"):
            write()
    assert readonly.put_image(whole.config([whole.alone.diff_id]), whole.manifest(whole.two).layers)
    readonly.index.remember_notebook("/n.ipynb", "{}")
    readonly.snapshots.remove(active)


def test_nothing_is_collected_while_somebody_only_reads(whole, readonly):
    assert readonly.leases.held() is None


# ---------------------------------------------------------------- many at once


_BUILDER = """
import sys, time
sys.path[:] = {path!r}
from pathlib import Path
from container_kernel.oci.idmap import IdMap
from container_kernel.store.store import Store
store = Store(Path({home!r}), {idmap!r}, userxattr={userxattr!r})
with store.building("0" * 64, lambda: time.sleep(0.005)):
    active = store.snapshots.prepare(None)
    print("inside", flush=True)
    sys.stdin.read(1)
"""


def test_a_waiter_takes_over_from_a_builder_that_was_killed(whole, entered):
    code = _BUILDER.format(
        path=sys.path, home=str(whole.home), idmap=entered.idmap, userxattr=entered.is_rootless
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    first = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert first.stdout.readline() == b"inside\n"
    second = subprocess.Popen([sys.executable, "-c", code], **pipes)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.3)
    first.send_signal(signal.SIGKILL)
    start = time.monotonic()
    assert second.stdout.readline() == b"inside\n"
    assert time.monotonic() - start < 2
    for process in (first, second):
        process.communicate(b"x")
    whole.reopen()
    assert os.listdir(whole.home / "active") == []


def test_ten_thousand_layers_are_no_burden(tmp_path, entered):
    """Opening does not look at them; checking and listing look at each once."""
    store = Store(tmp_path / "home", entered.idmap, userxattr=entered.is_rootless)
    with store.index.together():
        for number in range(10_000):
            digest = Digest.of(b"%d" % number)
            for more in range(10):
                store.index.remember_layer(f"{number}/{more}", digest, 1.0)
            place = store.snapshots.folder / digest.hex[:12]
            (place / "fs").mkdir(parents=True)
            layer.write(place, Snapshot(digest, None, digest, 1, "", place / "fs"), None)
    store.close()
    start = time.monotonic()
    store = Store(tmp_path / "home", entered.idmap, userxattr=entered.is_rootless)
    assert time.monotonic() - start < 1
    assert len(store.snapshots.walk()) == 10_000
    assert check(store) == []
    store.close()


def test_ids_are_what_they_were(whole):
    with pytest.raises(StoreError, match="other ids"):
        Store(whole.home, IdMap.single(), userxattr=False)


_OPEN = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from container_kernel.errors import StoreError
from container_kernel.oci.idmap import IdMap
from container_kernel.store.store import Store
try:
    Store(Path({home!r}), IdMap.identity(), userxattr=False)
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_where_files_cannot_be_locked_no_store_is_opened(tmp_path, error):
    """As on some network file systems: two processes would not know of each other."""
    code = _OPEN.format(path=sys.path, home=str(tmp_path / "home"))
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=flock:error={error}"]
    done = subprocess.run(
        [*strace, sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True
    )
    assert "cannot lock files" in done.stdout, done.stderr
    assert "on a local disk" in done.stdout
