"""The encoder: the same tree is the same bytes, and every other tool reads them alike."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from container_kernel import syscalls
from container_kernel.errors import ImageError, StoreError
from container_kernel.oci.changeset import Clamp, encode, tree_digest
from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap

OLD = 1_000_000_000
REAL_ROOT = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
as_root = pytest.mark.skipif(os.geteuid() != 0 or not REAL_ROOT, reason="needs real root")


def tar_of(tree: Path, **options) -> bytes:
    pieces: list[bytes] = []
    options = {"idmap": IdMap.identity(), "userxattr": False} | options
    size = encode(tree, lambda piece: pieces.append(bytes(piece)), **options)
    data = b"".join(pieces)
    assert size.tar_bytes == len(data)
    return data


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


def names(data: bytes) -> list[str]:
    return [member.name + "/" * member.isdir() for member in members(data)]


def settle(tree: Path) -> None:
    """Give everything one old time, contents before folders."""
    for path in [*sorted(tree.rglob("*"), reverse=True), tree]:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr.d").write_bytes(b"sorts before usr/")
    (root / "usr/lib/data").write_bytes(b"d" * 1000)
    (root / "usr/empty").touch()
    (root / "usr/link").symlink_to("lib/data")
    os.mkfifo(root / "usr/pipe", 0o600)
    settle(root)
    return root


def test_these_bytes_never_change(tmp_path):
    """If this fails, every digest ever printed is about to change: think again."""
    root = tmp_path / "tree"
    (root / "folder").mkdir(parents=True)
    (root / "folder/file").write_bytes(b"hello")
    (root / ("long" * 30)).write_bytes(b"")
    (root / "link").symlink_to("folder/file")
    for path in (root / "folder", root / "folder/file", root / ("long" * 30)):
        path.chmod(0o750)
    settle(root)
    found = tree_digest(root, idmap=IdMap.single(), userxattr=False)
    expected = "sha256:7042c5ffd1b162a60b79f7bd1953a7d8b62da9df2ece3214a9bd5ea252586bcf"
    assert found == (Digest(expected), 4608)


def test_gnu_tar_writes_the_same_bytes(tree):
    """Whoever wants to can check a layer of short names without us."""
    os.link(tree / "usr/lib/data", tree / "usr/lib/same")
    settle(tree)
    data = tar_of(tree)
    listing = "\0".join(names(data)).replace("/\0", "\0")
    tar = ["tar", "-c", "-C", tree, "--format=ustar", "--numeric-owner", "--no-recursion"]
    theirs = subprocess.run(
        [*tar, "--blocking-factor=1", "--null", "-T", "-"],
        input=listing.encode(),
        capture_output=True,
        check=True,
    )
    assert theirs.stdout == data


def test_names_are_sorted_by_their_bytes(tmp_path):
    for name in (b"b", b"a.b", b"a0", b"\xff", b"\xc3\xa9", b"A", b"+", b"a b"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").touch()
    found = [os.fsencode(name) for name in names(tar_of(tmp_path))]
    assert found == sorted(found)
    assert found[3:6] == [b"a.b", b"a/", b"a/x"]


def test_tarfile_reads_back_every_entry(tree):
    found = {member.name: member for member in members(tar_of(tree))}
    assert sorted(found) == [
        "usr",
        "usr.d",
        "usr/empty",
        "usr/lib",
        "usr/lib/data",
        "usr/link",
        "usr/pipe",
    ]
    assert found["usr/lib/data"].size == 1000
    assert found["usr/link"].linkname == "lib/data"
    assert found["usr/pipe"].isfifo()
    assert {member.mtime for member in found.values()} == {OLD}
    assert {(member.uname, member.gname) for member in found.values()} == {("", "")}


def test_gnu_tar_unpacks_the_same_tree(tree, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    subprocess.run(["tar", "-x", "-p", "-C", copy], input=tar_of(tree), check=True)
    os.utime(copy, (OLD, OLD))
    assert tar_of(copy) == tar_of(tree)


def test_digest_and_tar_agree(tree):
    data = tar_of(tree)
    digest, size = tree_digest(tree, idmap=IdMap.identity(), userxattr=False)
    assert (str(digest), size) == ("sha256:" + hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) - 2048, 5 * (1 << 20) + 1, 512, 513])
def test_block_boundaries_are_no_boundaries(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "big").write_bytes(content)
    (tmp_path / "next").write_bytes(b"n")
    data = tar_of(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.extractfile("big").read() == content
        assert archive.extractfile("next").read() == b"n"
    assert str(tree_digest(tmp_path, idmap=IdMap.identity(), userxattr=False)[0]) == str(
        Digest.of(data)
    )


def test_umask_place_and_order_of_creation_do_not_matter(tmp_path):
    digests = set()
    for number, order in enumerate((["a", "b", "c"], ["c", "b", "a"])):
        root = tmp_path / str(number) / ("deep" * number) / "tree"
        old = os.umask(0o077 if number else 0)
        root.mkdir(parents=True)
        for name in order:
            (root / name).write_text(name)
            (root / name).chmod(0o640)
        os.umask(old)
        settle(root)
        digests.add(tree_digest(root, idmap=IdMap.identity(), userxattr=False))
    assert len(digests) == 1


def test_long_names_and_targets_survive(tmp_path):
    folder = tmp_path / ("d" * 99) / ("é" * 100)
    folder.mkdir(parents=True)
    (folder / ("f" * 255)).write_text("deep")
    (folder / "link").symlink_to("t" * 4000)
    data = tar_of(tmp_path)
    found = {member.name: member for member in members(data)}
    prefix = f"{'d' * 99}/{'é' * 100}"
    assert found[f"{prefix}/{'f' * 255}"].size == 4
    assert found[f"{prefix}/link"].linkname == "t" * 4000
    listed = subprocess.run(
        ["tar", "-t", "--quoting-style=literal"], input=data, capture_output=True
    )
    assert f"{prefix}/{'f' * 255}".encode() in listed.stdout.splitlines()


def test_names_need_not_be_utf_8(tmp_path):
    long = b"\xff" * 200
    for name in (b"\xfe\xff", long):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    data = tar_of(tmp_path)
    listed = subprocess.run(
        ["tar", "-t", "--quoting-style=literal"], input=data, capture_output=True
    )
    assert listed.stdout.splitlines() == [b"\xfe\xff", long]


def test_a_tree_deeper_than_any_path_may_be(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(4096):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    _, size = tree_digest(tmp_path, idmap=IdMap.identity(), userxattr=False)
    after = len(os.listdir("/proc/self/fd"))
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest itself could not
    assert size > 4096 * 512
    assert after < before + 100  # not one for each level


def test_hard_links_point_at_the_first_name(tmp_path):
    (tmp_path / "b").write_text("shared")
    os.link(tmp_path / "b", tmp_path / "a")
    (tmp_path / "c").mkdir()
    os.link(tmp_path / "b", tmp_path / "c/d")
    found = {member.name: member for member in members(tar_of(tmp_path))}
    assert found["a"].isreg()
    assert [found[name].linkname for name in ("b", "c/d")] == ["a", "a"]


def test_sockets_are_left_out(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    assert names(tar_of(tmp_path)) == []


def test_links_are_kept_as_links(tmp_path):
    (tmp_path / "shadow").symlink_to("/etc/shadow")
    (tmp_path / "etc").symlink_to("/etc")
    assert [(m.name, m.type, m.linkname) for m in members(tar_of(tmp_path))] == [
        ("etc", tarfile.SYMTYPE, "/etc"),
        ("shadow", tarfile.SYMTYPE, "/etc/shadow"),
    ]


def test_owners_are_translated(tmp_path):
    (tmp_path / "file").touch()
    uid, gid = os.getuid(), os.getgid()
    idmap = (
        IdMap(((1234, uid, 1), (4_000_000, gid, 1)))
        if uid != gid
        else IdMap(((5_000_000, uid, 1),))
    )
    (found,) = members(tar_of(tmp_path, idmap=idmap))
    assert found.uid == (1234 if uid != gid else 5_000_000)


@as_root
def test_a_store_of_root_and_one_of_a_user_agree(tmp_path):
    """The same image on disk under two id maps, one digest."""
    digests = set()
    for idmap in (IdMap.identity(), IdMap.keep_user(65536)):
        root = tmp_path / f"root-{idmap.to_disk(0)}"
        root.mkdir()
        for image_id in (0, 5, 1000, 1001, 60000):
            (root / str(image_id)).touch()
            os.chown(root / str(image_id), idmap.to_disk(image_id), idmap.to_disk(image_id))
        settle(root)
        digests.add(tree_digest(root, idmap=idmap, userxattr=False))
    assert len(digests) == 1


@pytest.mark.privileged
def test_what_is_mounted_inside_is_left_out(tmp_path):
    (tmp_path / "proc").mkdir()
    syscalls.mount("proc", str(tmp_path / "proc"), "proc")
    try:
        assert names(tar_of(tmp_path)) == ["proc/"]
    finally:
        syscalls.umount(str(tmp_path / "proc"))


def test_large_sizes_and_odd_times_survive(tmp_path):
    with (tmp_path / "old").open("w"):
        pass
    os.utime(tmp_path / "old", (-5, -5))
    os.utime(tmp_path / "old", ns=(-4_500_000_000, -4_500_000_000))
    (found,) = members(tar_of(tmp_path))
    assert found.mtime == -5


@as_root
def test_whiteouts_and_opaque_folders_become_marks(tmp_path):
    os.mknod(tmp_path / "gone", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    (tmp_path / "hides").mkdir()
    (tmp_path / "hides/!new").touch()
    os.setxattr(tmp_path / "hides", "trusted.overlay.opaque", b"y")
    assert names(tar_of(tmp_path)) == [".wh.gone", "hides/", "hides/.wh..wh..opq", "hides/!new"]


def test_opaque_folders_of_a_rootless_overlay(tmp_path):
    (tmp_path / "hides").mkdir()
    os.setxattr(tmp_path / "hides", "user.overlay.opaque", b"y")
    assert names(tar_of(tmp_path, userxattr=True)) == ["hides/", "hides/.wh..wh..opq"]
    assert names(tar_of(tmp_path)) == ["hides/"]


@as_root
def test_marks_have_no_time_and_no_owner(tmp_path):
    os.mknod(tmp_path / "gone", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.chown(tmp_path / "gone", 5, 5)
    (mark,) = members(tar_of(tmp_path))
    assert (mark.mode, mark.uid, mark.gid, mark.mtime, mark.size) == (0o644, 0, 0, 0, 0)


@as_root
def test_devices_keep_their_numbers(tmp_path):
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (found,) = members(tar_of(tmp_path))
    assert (found.type, found.devmajor, found.devminor) == (tarfile.CHRTYPE, 1, 3)


def test_only_the_images_own_attributes_are_written(tmp_path):
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "user.note", b"a\0b\n=c")
    os.setxattr(tmp_path / "file", "user.overlay.impure", b"y")
    data = tar_of(tmp_path)
    assert b"SCHILY.xattr.user.note=a\0b\n=c\n" in data
    assert b"overlay" not in data


@as_root
def test_capabilities_lose_the_namespace_that_set_them(tmp_path):
    (tmp_path / "ping").touch()
    value = bytes.fromhex("0000000200200000000000000000000000000000")
    os.setxattr(tmp_path / "ping", "security.capability", value)
    assert b"SCHILY.xattr.security.capability=" + value in tar_of(tmp_path)


@pytest.mark.parametrize("name", [".wh.", ".wh.x", ".wh..wh..opq"])
def test_reserved_names_are_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ImageError, match="reserve names"):
        tar_of(tmp_path)


@pytest.mark.parametrize("feature", ["redirect", "metacopy"])
def test_trees_of_a_wrongly_mounted_overlay_are_refused(tmp_path, feature):
    (tmp_path / "folder").mkdir()
    os.setxattr(tmp_path / "folder", f"user.overlay.{feature}", b"/elsewhere")
    with pytest.raises(StoreError, match=feature):
        tar_of(tmp_path, userxattr=True)


def test_new_times_are_clamped_on_disk_and_in_the_tar(tree):
    since = time.time()
    (tree / "usr/new").write_text("new")
    (tree / "usr/newlink").symlink_to("new")
    data = tar_of(tree, clamp=Clamp(since, 42))
    found = {member.name: member.mtime for member in members(data)}
    assert {name for name, mtime in found.items() if mtime == 42} == {
        "usr",
        "usr/new",
        "usr/newlink",
    }
    assert found["usr/lib/data"] == OLD
    assert (tree / "usr/newlink").lstat().st_mtime == 42
    assert tar_of(tree) == data


def test_memory_does_not_grow_with_the_tree(tmp_path):
    import tracemalloc

    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for number in range(50):
            (tmp_path / f"{folder}/{number}").write_bytes(bytes(20_000))
    tracemalloc.start()
    tree_digest(tmp_path, idmap=IdMap.identity(), userxattr=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
