"""The decoder, with layers as image builders write them."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from container_kernel.errors import ImageError
from container_kernel.oci.changeset import encode
from container_kernel.oci.decoder import apply
from container_kernel.oci.idmap import IdMap
from tests.oci.layers import entry, hard_link, layer, pax, raw, record, symlink

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def unpack(root: Path, data: bytes, *parents: Path, **options):
    fds = [os.open(path, os.O_RDONLY) for path in (root, *parents)]
    options = {"idmap": IdMap.single(), "userxattr": True} | options
    try:
        return apply(io.BytesIO(data), fds[0], parents=lambda: fds[1:], **options)
    finally:
        for fd in fds:
            os.close(fd)


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def is_whiteout(path: Path) -> bool:
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "user.overlay.opaque" in os.listxattr(path)


def test_every_kind_of_entry(root):
    size = unpack(
        root,
        layer(
            entry("usr/", mode=0o2755),
            entry("usr/data", b"hello", mode=0o4711),
            symlink("usr/link", "/etc/passwd"),
            hard_link("usr/same", "usr/data"),
            entry("usr/pipe", kind=tarfile.FIFOTYPE, mode=0o640),
        ),
    )
    assert tree(root) == ["usr", "usr/data", "usr/link", "usr/pipe", "usr/same"]
    assert (root / "usr/data").read_bytes() == b"hello"
    assert (root / "usr/same").samefile(root / "usr/data")
    assert os.readlink(root / "usr/link") == "/etc/passwd"
    modes = {path: stat.S_IMODE((root / path).lstat().st_mode) for path in tree(root)}
    assert (modes["usr"], modes["usr/data"], modes["usr/pipe"]) == (0o2755, 0o4711, 0o640)
    assert {(root / path).lstat().st_mtime for path in tree(root)} == {1_000_000_000}
    assert (size.entries, size.tar_bytes) == (5, 512 * 8)


def test_what_the_encoder_writes_comes_back(root, tmp_path):
    source = tmp_path / "source"
    (source / "deep" / ("é" * 100) / ("f" * 120)).mkdir(parents=True)
    (source / "deep/file").write_bytes(os.urandom(3 << 20))
    os.link(source / "deep/file", source / "other")
    (source / "deep/link").symlink_to("x/" * 150)
    (source / "hides").mkdir(0o1777)
    os.setxattr(source / "hides", "user.overlay.opaque", b"y")
    os.setxattr(source / "deep/file", "user.note", b"a\0b")
    os.mknod(source / "gone", stat.S_IFCHR, os.makedev(0, 0))
    data: list[bytes] = []
    for tree_ in (source, root):
        pieces: list[bytes] = []
        options = {"idmap": IdMap.single(), "userxattr": True}
        encode(tree_, lambda piece, to=pieces: to.append(bytes(piece)), **options)
        data.append(b"".join(pieces))
        if tree_ is source:
            for path in [*source.rglob("*")]:
                os.utime(path, (5, 5), follow_symlinks=False)
            pieces.clear()
            encode(source, lambda piece, to=pieces: to.append(bytes(piece)), **options)
            data[0] = b"".join(pieces)
            unpack(root, data[0])
    assert data[0] == data[1]


@pytest.mark.parametrize("style", ["--format=gnu", "--format=pax", "--format=ustar", "--format=v7"])
def test_what_gnu_tar_writes_is_read(root, tmp_path, style):
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder/file").write_bytes(b"content")
    (source / "link").symlink_to("folder/file")
    if style in ("--format=gnu", "--format=pax"):
        (source / ("n" * 200)).write_bytes(b"long name")
        (source / "longlink").symlink_to("t" * 200)
    command = ["tar", "-c", style, "-C", source, "."]
    unpack(root, subprocess.run(command, capture_output=True, check=True).stdout)
    assert tree(root) == tree(source)
    assert (root / "folder/file").read_bytes() == b"content"


def test_binary_numbers_are_read(root):
    big = b"\x80" + (5).to_bytes(7, "big")
    unpack(root, layer(raw(b"file", uid=big, mtime=b"\xff" * 11 + b"\xfb")))
    assert (root / "file").stat().st_mtime == -5


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240)])
def test_the_end_may_be_short_or_padded(root, end):
    unpack(root, entry("file", b"x") + end)
    assert tree(root) == ["file"]


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(1024), bytes(20480)])
def test_a_layer_may_be_empty(root, data):
    assert unpack(root, data).entries == 0


@pytest.mark.parametrize("name", ["./", "/", ".", "//", "././"])
def test_the_root_folder_may_be_named(root, name):
    before = stat.S_IMODE(root.stat().st_mode)
    unpack(root, layer(entry(name, kind=tarfile.DIRTYPE, mode=0o1777), entry("./file", b"")))
    assert tree(root) == ["file"]
    assert stat.S_IMODE(root.stat().st_mode) == before


@pytest.mark.parametrize("name", ["/etc/motd", "./etc/motd", "etc//motd", "//etc/./motd"])
def test_a_path_is_read_from_the_layers_root(root, name):
    unpack(root, layer(entry(name, b"hello")))
    assert (root / "etc/motd").read_bytes() == b"hello"


def test_an_implied_folder_takes_after_the_one_below(root, tmp_path):
    below = tmp_path / "below"
    (below / "tmp").mkdir(parents=True)
    (below / "tmp").chmod(0o1777)
    os.utime(below / "tmp", (7, 7))
    unpack(root, layer(entry("tmp/file", b""), entry("new/file", b"")), below)
    info = (root / "tmp").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_mtime) == (0o1777, 7)
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755


@as_root
def test_owners_are_written_as_this_host_maps_them(root):
    idmap = IdMap.keep_user(65536)
    data = layer(entry("r", b""), entry("u", b"", uid=1000, gid=1000), entry("d/f", b"", uid=5))
    unpack(root, data, idmap=idmap)
    owners = {name: (root / name).stat().st_uid for name in ("r", "u", "d", "d/f")}
    assert owners == {"r": 1, "u": 0, "d": 1, "d/f": 6}


def test_an_id_out_of_range_is_named(root):
    with pytest.raises(ImageError, match=r"70000.*\nhint: .*subuid"):
        unpack(root, layer(entry("f", b"", uid=70000)), idmap=IdMap.keep_user(65536))


def test_zeros_become_holes(root):
    unpack(root, layer(entry("sparse", bytes(8 << 20)), entry("tail", bytes(300_000) + b"x")))
    assert (root / "sparse").stat().st_size == 8 << 20
    assert (root / "sparse").stat().st_blocks == 0
    assert (root / "tail").read_bytes() == bytes(300_000) + b"x"


def test_a_later_entry_replaces_an_earlier_one(root):
    unpack(
        root,
        layer(
            entry("a", b"one"),
            hard_link("b", "a"),
            entry("a", b"two"),
            symlink("c", "nowhere"),
            entry("c", b"file"),
            entry("d/"),
            entry("d", b"was empty"),
            entry("e", b"was file"),
            entry("e/"),
        ),
    )
    assert [(root / name).read_bytes() for name in "abcd"] == [
        b"two",
        b"one",
        b"file",
        b"was empty",
    ]
    assert (root / "e").is_dir()


def test_names_that_differ_only_in_case_or_composition(root):
    names = ["Name", "name", "\u00e9", "e\u0301"]
    unpack(root, layer(*(entry(name, name.encode()) for name in names)))
    assert [(root / name).read_text() for name in names] == names


def test_names_need_not_be_utf_8(root):
    unpack(root, layer(raw(b"\xff\xfe"), pax(record(b"path", b"\xff" * 150)) + raw(b"x")))
    assert set(os.listdir(os.fsencode(root))) == {b"\xff" * 150, b"\xff\xfe"}


# Whiteouts


def test_whiteouts_become_the_overlays(root):
    unpack(root, layer(entry("d/"), entry("d/.wh.gone", b""), entry(".wh.top", b"")))
    assert is_whiteout(root / "d/gone")
    assert is_whiteout(root / "top")


def test_an_opaque_mark_becomes_an_attribute(root):
    unpack(root, layer(entry("d/"), entry("d/.wh..wh..opq", b"")))
    assert is_opaque(root / "d")
    assert tree(root) == ["d"]


@pytest.mark.parametrize("mark_first", [True, False])
def test_marks_hide_only_what_is_below_wherever_they_stand(root, mark_first):
    marks = [entry("d/.wh..wh..opq", b""), entry(".wh.f", b""), entry(".wh.folder", b"")]
    others = [
        entry("d/"),
        entry("d/new", b"1"),
        entry("f", b"2"),
        entry("folder/"),
        entry("folder/x", b""),
    ]
    unpack(root, layer(*(marks + others if mark_first else others + marks)))
    assert tree(root) == ["d", "d/new", "f", "folder", "folder/x"]
    assert is_opaque(root / "d")
    assert is_opaque(root / "folder")
    assert (root / "f").read_bytes() == b"2"


def test_entries_below_a_whiteout_show_through_nothing(root):
    unpack(root, layer(entry(".wh.folder", b""), entry("folder/x", b"")))
    assert is_opaque(root / "folder")


@pytest.mark.parametrize(
    "mark",
    [
        entry(".wh.gone/"),
        symlink(".wh.gone", "/etc"),
        entry(".wh.gone", kind=tarfile.CHRTYPE),
        hard_link(".wh.gone", ".wh..wh.plnk/5.6"),
        entry(".wh.gone", b"with content"),
    ],
    ids=["folder", "symlink", "device", "hard link", "content"],
)
def test_a_whiteout_may_be_of_any_kind(root, mark):
    unpack(root, layer(mark))
    assert is_whiteout(root / "gone")


def test_what_aufs_left_behind_is_passed_over(root):
    unpack(
        root,
        layer(entry(".wh..wh.plnk/"), entry(".wh..wh.plnk/5.6", b"x"), entry(".wh..wh.aufs", b"")),
    )
    assert tree(root) == []


# Attributes


def test_only_the_images_own_attributes_are_set(root):
    attributes = {
        "SCHILY.xattr.user.note": "kept",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "label",
        "SCHILY.xattr.system.posix_acl_access": "x",
        "SCHILY.xattr.security.capability": "not a capability",
    }
    unpack(root, layer(entry("d/", pax=attributes), entry("f", b"", pax=attributes)))
    for name in "df":
        ours = [key for key in os.listxattr(root / name) if key != "security.selinux"]
        assert ours == ["user.note"]


@as_root
@pytest.mark.parametrize("tail", [b"", bytes(4)], ids=["revision 2", "revision 3 of root"])
def test_capabilities_are_set_without_an_id(root, tail):
    body = bytes.fromhex("00200000000000000000000000000000")
    value = (b"\x01\x00\x00\x03" if tail else b"\x01\x00\x00\x02") + body + tail
    unpack(root, layer(pax(record(b"SCHILY.xattr.security.capability", value)) + raw(b"ping")))
    assert os.getxattr(root / "ping", "security.capability") == b"\x01\x00\x00\x02" + body


@as_root
def test_a_capability_of_another_namespace_is_left_out(root):
    value = b"\x01\x00\x00\x03" + bytes(16) + (1000).to_bytes(4, "little")
    unpack(root, layer(pax(record(b"SCHILY.xattr.security.capability", value)) + raw(b"ping")))
    assert os.listxattr(root / "ping") == []


def test_devices_are_left_out(root):
    unpack(
        root,
        layer(
            entry("dev/"),
            entry("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
            entry("dev/zero", kind=tarfile.CHRTYPE, devmajor=0, devminor=0),
            entry("dev/sda", kind=tarfile.BLKTYPE, devmajor=8, devminor=0),
        ),
    )
    assert tree(root) == ["dev"]
