"""The box: what a child that unpacks can see and do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from container_kernel import syscalls
from container_kernel.errors import ImageError, StoreError
from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap
from container_kernel.transfer import landlock
from container_kernel.transfer.box import unpack_boxed
from container_kernel.transfer.compression import Caps
from container_kernel.transfer.unpack import unpack_rootfs
from tests.transfer.layouts import layer_tar

pytestmark = pytest.mark.privileged

INSIDE = """
import ctypes, json, os, socket, sys
sys.path[:] = {path!r}
from container_kernel.transfer.confine import confine
confine({folder!r}, memory_bytes=256 << 20, cpu_s=60, keep_admin=False)
def tried(action):
    try:
        return repr(action())
    except BaseException as error:
        return type(error).__name__
libc = ctypes.CDLL(None)
print(json.dumps({{
    "root": sorted(os.listdir("/")),
    "up": sorted(os.listdir("/..")),
    "socket": tried(lambda: socket.socket()),
    "fork": tried(os.fork),
    "exec": tried(lambda: os.execv("/bin/true", ["true"])),
    "mount": libc.mount(b"x", b"/", b"tmpfs", 0, 0),
    "unshare": libc.unshare(0x10000000),
    "chroot": libc.chroot(b"/"),
    "kill": tried(lambda: os.kill(1, 0)),
    "memory": tried(lambda: len(bytearray(400 << 20))),
    "nnp": libc.prctl(39, 0, 0, 0, 0),
    "seccomp": libc.prctl(21, 0, 0, 0, 0),
    "umask": os.umask(0),
}}))
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def idmap(entered) -> IdMap:
    return entered.idmap


def box(data: bytes, target: Path | None, entered, **options):
    with io.FileIO(os.memfd_create("layer"), "r+") as file:
        file.write(data)
        file.seek(0)
        return unpack_boxed(
            file.fileno(), target, idmap=entered.idmap, userxattr=entered.is_rootless, **options
        )


def test_a_confined_process_sees_and_can_do_nothing_else(target):
    (target / "only this").touch()
    code = INSIDE.format(path=sys.path, folder=str(target))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found == {
        "root": ["only this"],
        "up": ["only this"],
        "socket": "PermissionError",
        "fork": "PermissionError",
        "exec": "PermissionError",
        "mount": -1,
        "unshare": -1,
        "chroot": -1,
        "kill": "PermissionError",
        "memory": "MemoryError",
        "nnp": 1,
        "seccomp": 2,
        "umask": 0,
    }


UPWARDS = """
import json, os, sys
sys.path[:] = {path!r}
from container_kernel.transfer.confine import confine
before, parent = (os.open(name, os.O_RDONLY | os.O_DIRECTORY) for name in ({folder!r}, {parent!r}))
confine({inside!r}, memory_bytes=256 << 20, cpu_s=60, keep_admin=False, readable=[parent])
def tried(path, flags, folder):
    try:
        os.close(os.open(path, flags, 0o600, dir_fd=folder))
        return "done"
    except OSError as error:
        return type(error).__name__
print(json.dumps([
    tried("../canary", os.O_RDONLY, before),
    tried("../new", os.O_WRONLY | os.O_CREAT, before),
    tried("../canary", os.O_RDONLY, parent),
    tried("new", os.O_WRONLY | os.O_CREAT, parent),
    tried("file", os.O_WRONLY, parent),
    tried("file", os.O_RDONLY, parent),
    tried("new", os.O_WRONLY | os.O_CREAT, before),
]))
"""


@pytest.mark.parametrize("has_target", [True, False])
def test_no_folder_that_is_open_is_a_way_up_or_to_the_layers_below(target, tmp_path, has_target):
    """Row 66's last wall: the layers below are open in the box, and lie beside all others."""
    if landlock.abi() < 2:
        pytest.skip("this kernel has no Landlock, or one that forbids hard links")
    (tmp_path / "canary").write_text("secret")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/file").write_text("frozen")
    inside = str(target) if has_target else None
    names = {"folder": str(target), "parent": str(tmp_path / "below"), "inside": inside}
    code = UPWARDS.format(path=sys.path, **names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    *refused, readable, in_target = json.loads(done.stdout)
    assert set(refused) == {"PermissionError"}
    assert (readable, in_target) == ("done", "done" if has_target else "PermissionError")


def test_a_layer_is_unpacked_and_measured(target, entered):
    data = layer_tar({"a/": b"", "a/b": b"hello", ".wh.c": b""})
    found = box(data, target, entered)
    assert (found.diff_id, found.size, found.entries) == (Digest.of(data), len(data), 3)
    assert (target / "a/b").read_bytes() == b"hello"
    assert (target / "c").is_char_device()


def test_owners_and_set_user_id_bits_are_kept(target, entered):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("su")
        info.mode, info.uid, info.gid = 0o6755, 12, 34
        archive.addfile(info)
    box(out.getvalue(), target, entered)
    info = (target / "su").stat()
    assert (info.st_uid, info.st_gid) == (entered.idmap.to_disk(12), entered.idmap.to_disk(34))
    assert info.st_mode & 0o7777 == 0o6755


def test_opaque_folders_are_marked_as_this_store_marks_them(target, entered):
    box(layer_tar({"d/": b"", "d/.wh..wh..opq": b""}), target, entered)
    name = "user" if entered.is_rootless else "trusted"
    assert os.getxattr(target / "d", f"{name}.overlay.opaque") == b"y"


def test_without_a_target_bytes_are_only_checked(entered):
    data = layer_tar({"a": b"x"})
    assert box(data, None, entered).diff_id == Digest.of(data)


def test_errors_cross_the_wall_with_their_words(target, entered):
    with pytest.raises(ImageError, match=r"'\.\./x' leads out"):
        box(layer_tar({"../x": b""}), target, entered)
    with pytest.raises(ImageError, match="more than 1000 bytes"):
        box(layer_tar({"x": b""}), target, entered, caps=Caps(total_bytes=1000))


@pytest.mark.parametrize("limit", ["size=1m", "nr_inodes=20"])
def test_a_full_disk_is_the_stores_trouble(target, entered, limit):
    files = {f"f{number}": os.urandom(100_000) for number in range(30)}
    syscalls.mount("tmpfs", str(target), "tmpfs", 0, limit)
    try:
        with pytest.raises(StoreError, match="no space left"):
            box(layer_tar(files), target, entered)
    finally:
        syscalls.umount(str(target))


def test_a_pipe_will_do(target, entered):
    data = layer_tar({"big": os.urandom(3 << 20)})
    reader, writer = os.pipe()

    def feed() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reader, "rb") as source:
        unpack_rootfs(source, target, idmap=entered.idmap, userxattr=entered.is_rootless)
    thread.join()
    assert (target / "big").stat().st_size == 3 << 20


def test_the_box_dies_with_its_owner(target, entered, tmp_path):
    """A killed import leaves no process behind."""
    reader, writer = os.pipe()
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from container_kernel.oci.idmap import IdMap
from container_kernel.transfer.box import unpack_boxed
unpack_boxed({reader}, Path({str(target)!r}), idmap=IdMap.single(), userxattr=True)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], pass_fds=[reader])
    os.close(reader)
    children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children")
    deadline = time.monotonic() + 10
    while not (pids := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.write(writer, bytes(100))
    owner.kill()
    owner.wait()
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pids
    assert not any(is_alive(pid) for pid in pids)
    os.close(writer)


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
