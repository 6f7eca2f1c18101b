"""The decoder, with layers made to break it. A canary beside the target must never change.

The numbers are rows of the threat matrix; a CVE names the bug whose shape a case has.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from container_kernel.errors import ImageError
from container_kernel.oci.tar_reader import TarReader
from container_kernel.oci.xattr import is_kept
from tests.oci.layers import entry, hard_link, layer, pax, raw, record, symlink
from tests.oci.test_decoder import tree, unpack


def state(folder: Path) -> list[tuple]:
    return [
        (str(path), info.st_mode, info.st_nlink, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        for path in sorted([folder, *folder.rglob("*")])
        for info in [path.lstat()]
    ]


@pytest.fixture
def root(tmp_path: Path):
    canary = tmp_path / "canary"
    (canary / "folder").mkdir(parents=True)
    (canary / "folder/file").write_text("do not touch")
    (tmp_path / "root").mkdir()
    before = state(canary)
    yield tmp_path / "root"
    assert state(canary) == before


def out(root: Path, rest: str = "folder/file") -> list[str]:
    """Ways to say the canary from inside the target."""
    return [f"../canary/{rest}", f"{root.parent}/canary/{rest}", f"/../canary/{rest}"]


UP = "../" * 12


@pytest.mark.parametrize(
    "name", [f"{UP}canary/file", "../canary/x", "a/../../canary/x", "a/..", "..", "../", "/../x"]
)
def test_65_dot_dot_is_refused(root, name):
    for make in (lambda: entry(name, b"x"), lambda: entry(name + "/"), lambda: symlink(name, "x")):
        with pytest.raises(ImageError, match=r"\.\."):
            unpack(root, layer(make()))


def test_65_an_absolute_path_stays_inside(root):
    name = f"{root.parent}/canary/folder/file"
    unpack(root, layer(entry(name, b"x")))
    assert (root / name.lstrip("/")).read_bytes() == b"x"


def test_65_a_file_named_like_a_folder_is_refused(root):
    with pytest.raises(ImageError, match="like a folder"):
        unpack(root, layer(raw(b"file/")))


def test_66_nothing_is_made_through_a_link(root):
    for number, target in enumerate([*out(root, "folder"), "../canary", "..", "/"]):
        link = f"link{number}"
        for bad in (
            entry(f"{link}/file", b"x"),
            entry(f"{link}/folder/"),
            symlink(f"{link}/file", "x"),
            entry(f"{link}/.wh.file", b""),
            entry(f"{link}/.wh..wh..opq", b""),
            entry(f"{link}/pipe", kind=tarfile.FIFOTYPE),
            hard_link("copy", f"{link}/file"),
            hard_link(f"{link}/copy", "plain"),
        ):
            with pytest.raises(ImageError, match=r"leads through|no folder"):
                unpack(root, layer(entry("plain", b""), symlink(link, target), bad))


def test_66_a_link_from_an_earlier_run_is_no_way_either(root):
    (root / "link").symlink_to(root.parent / "canary")
    with pytest.raises(ImageError, match="leads through"):
        unpack(root, layer(entry("link/folder/file", b"x")))


def test_67_hard_links_out_are_refused(root):
    for target in [*out(root), "link/file", "link", "missing", "folder", "../root/plain", "self"]:
        with pytest.raises(ImageError):
            unpack(
                root,
                layer(
                    entry("plain", b""),
                    entry("folder/"),
                    symlink("link", str(root.parent / "canary/folder")),
                    hard_link("self" if target == "self" else "new", target),
                    entry("new/under", b"x") if target == "link" else b"",
                ),
            )


def test_67_writing_over_a_hard_linked_symlink_replaces_it(root):
    """CVE-2026-17106: the second name of a symlink, then content for it."""
    unpack(
        root,
        layer(
            symlink("link", str(root.parent / "canary/folder/file")),
            hard_link("second", "link"),
            entry("second", b"overwritten"),
            entry("link", b"overwritten"),
        ),
    )
    assert not (root / "second").is_symlink()


@pytest.mark.parametrize("name", [".", "/", "./", "//", ""])
@pytest.mark.parametrize("kind", [b"2", b"0", b"1", b"6"])
def test_68_the_root_is_not_replaced(root, name, kind):
    bad = raw(name.encode(), kind)
    with pytest.raises(ImageError, match=r"root folder|empty path"):
        unpack(root, layer(bad, entry("canary/x", b"")))
    assert root.is_dir()


@pytest.mark.parametrize(
    "name",
    [
        ".wh.",
        ".wh..",
        ".wh...",
        "d/.wh.",
        "d/.wh..",
        "d/.wh...",
        ".wh./x",
        ".wh.../x",
        ".wh.x/y",
        ".wh.d/.wh.x",
    ],
)
def test_69_whiteouts_of_nothing_are_refused(root, name):
    with pytest.raises(ImageError, match="whiteout"):
        unpack(root, layer(entry("d/"), entry(name, b"")))


def test_69_a_hard_link_to_a_whiteout_is_refused(root):
    for target in (".wh.x", "x"):
        with pytest.raises(ImageError):
            unpack(root, layer(entry(".wh.x", b""), hard_link("y", target)))


def test_74_a_device_00_is_no_whiteout(root):
    unpack(root, layer(entry("etc", kind=tarfile.CHRTYPE, devmajor=0, devminor=0)))
    assert tree(root) == []


def test_75_a_folder_replaced_by_a_link_is_not_followed(root):
    """CVE-2021-32760, CVE-2025-47290: mode, owner and time must hit the link or nothing."""
    canary = str(root.parent / "canary")
    unpack(root, layer(entry("d/", mode=0o777), symlink("d", canary)))
    assert (root / "d").is_symlink()
    with pytest.raises(ImageError, match="not empty"):
        unpack(root, layer(entry("e/"), entry("e/x", b""), symlink("e", canary)))
    with pytest.raises(ImageError, match="leads through"):
        unpack(root, layer(symlink("f", canary), entry("f/folder/", mode=0o777)))


def test_75_an_entry_over_a_link_replaces_the_link(root):
    canary = str(root.parent / "canary")
    for bad in (entry("d/", mode=0o777), entry("d", b"", mode=0o777), entry("d", kind=b"6")):
        unpack(root, layer(symlink("d", canary), bad))
        assert not (root / "d").is_symlink()
        os.rmdir(root / "d") if (root / "d").is_dir() else (root / "d").unlink()


def swap(root: Path, stop: threading.Event) -> None:
    """Turn ``root/d`` into a link to the canary and back, as fast as possible."""
    while not stop.is_set():
        try:
            os.rename(root / "d", root.parent / "aside")
            os.symlink(root.parent / "canary/folder", root / "d")
            os.unlink(root / "d")
            os.rename(root.parent / "aside", root / "d")
        except OSError:
            continue


def test_76_a_folder_swapped_for_a_link_meanwhile(root):
    data = layer(entry("d/"), *(entry(f"d/f{n}", b"x") + entry(f"d/s{n}/") for n in range(20)))
    stop = threading.Event()
    thread = threading.Thread(target=swap, args=(root, stop))
    thread.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            try:
                unpack(root, data)
            except ImageError:
                pass
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (pax(record(b"path", b"a\0b")) + raw(b"x"), "impossible path"),
        (pax(record(b"linkpath", b"a\0b")) + raw(b"x", b"2"), "impossible path"),
        (pax(record(b"path", b"a/" * 9000)) + raw(b"x"), "impossible path"),
        (pax(record(b"path", b"n" * 256)) + raw(b"x"), "cannot be made"),
        (pax(record(b"path", b"a"), record(b"path", b"b")) + raw(b"x"), "two values"),
        (pax(record(b"path", b"a")) + pax(record(b"path", b"b")) + raw(b"x"), "two values"),
        (pax(record(b"size", b"-1")) + raw(b"x"), "impossible size"),
        (pax(record(b"size", b"1" * 5000)) + raw(b"x"), "impossible size"),
        (pax(record(b"size", b"0x10")) + raw(b"x"), "impossible size"),
        (pax(record(b"size", b"9" * 19)) + raw(b"x"), "impossible size"),
        (pax(record(b"uid", b"-1")) + raw(b"x"), "impossible uid"),
        (pax(record(b"uid", b"4294967296")) + raw(b"x"), "impossible id"),
        (pax(record(b"gid", b"4294967295")) + raw(b"x"), "impossible id"),
        (pax(record(b"mtime", b"now")) + raw(b"x"), "impossible mtime"),
        (pax(record(b"mtime", b"9" * 30)) + raw(b"x"), "impossible mtime"),
        (pax(b"not a record\n") + raw(b"x"), "malformed"),
        (pax(b"99999999 path=a\n") + raw(b"x"), "malformed"),
        (pax(b"0 path=a\n") + raw(b"x"), "malformed"),
        (pax(b"2 \n") + raw(b"x"), "malformed"),
        (pax(b"9 path=aa\n") + raw(b"x"), "malformed"),
        (pax(b"6 =aa\n") + raw(b"x"), "malformed"),
        (raw(b"x", b"x", b"77777777777"), "claims"),
        (raw(b"x", b"L", b"77777777777"), "claims"),
        (raw(b"x", b"L", b"\x80" + b"\xff" * 11), "impossible size"),
        (pax(record(b"path", b"a"), kind=b"g") + raw(b"x"), "global"),
        (pax(record(b"path", b"a")), "ends after"),
        (raw(b"x", size=b"\xff" * 12), "impossible size"),
        (raw(b"x", size=b"\x80" + b"\xff" * 11), "impossible size"),
        (raw(b"x", size=b"9"), "malformed size"),
        (raw(b"x", size=b"-1"), "malformed size"),
        (raw(b"x", size=b"1_0"), "malformed size"),
        (raw(b"x", uid=b"0x1"), "malformed uid"),
        (raw(b"x", b"Z"), "unknown kind"),
        (raw(b"x", b"V"), "unknown kind"),
        (raw(b"x", b"5", b"1000", b"s" * 512), "no file"),
        (raw(b"x", b"2", b"1000", b"s" * 512), "no file"),
        (raw(b"x", b"1", b"1000", b"s" * 512), "no file"),
    ],
)
def test_77_malformed_headers_are_refused(root, bad, message):
    with pytest.raises(ImageError, match=message):
        unpack(root, layer(bad))
    assert tree(root) in ([], ["a"])


@pytest.mark.parametrize(
    "bad",
    [
        raw(b"x", b"S", b"0"),
        pax(record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.realsize", b"1" * 19))
        + raw(b"x"),
        pax(record(b"GNU.sparse.map", b"0,1," * 100_000)) + raw(b"x"),
    ],
)
def test_78_sparse_files_are_refused_without_reading_their_map(root, bad):
    tracemalloc.start()
    with pytest.raises(ImageError, match="sparse"):
        unpack(root, layer(bad))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (entry("f", b"x" * 1000)[:700], "cut off"),
        (entry("f", b"x" * 1000)[:1400], "cut off"),
        (entry("f", b"x")[:100], "cut off"),
        (layer(entry("f", b"x")) + b"garbage", "cut off|after its end"),
        (layer(entry("f", b"x")) + b"g" * 512, "after its end"),
        (entry("f", b"x") + bytes(512) + entry("g", b"x"), "after its end"),
        (b"x" * 512, "not a tar"),
        (b"\x1f\x8b" + b"x" * 510, "not a tar|checksum"),
    ],
)
def test_80_cut_off_or_trailing_data_is_refused(root, data, message):
    with pytest.raises(ImageError, match=message):
        unpack(root, data)


def test_83_many_entries_of_one_name_take_linear_time(root):
    one = entry("f", b"")
    times = []
    for count in (2000, 8000):
        start = time.perf_counter()
        unpack(root, layer(one * count))
        times.append(time.perf_counter() - start)
    assert times[1] < 12 * times[0]


def test_too_many_entries_are_refused(root):
    with pytest.raises(ImageError, match="more than 10 entries"):
        unpack(root, layer(*(entry(f"f{n}", b"") for n in range(11))), max_entries=10)


def test_a_deep_tree_does_not_run_out_of_descriptors(root):
    before = len(os.listdir("/proc/self/fd"))
    unpack(root, layer(entry("d/" * 2000 + "f", b"x")))
    assert len(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rm", "-rf", root / "d"], check=True)


def test_73_the_list_of_attributes_is_short():
    kept = [b"user.x", b"security.capability"]
    dropped = [
        b"user.overlay.opaque",
        b"trusted.x",
        b"security.selinux",
        b"system.posix_acl_default",
    ]
    assert [is_kept(name) for name in kept + dropped] == [True] * 2 + [False] * 4


blocks = st.one_of(
    st.binary(min_size=512, max_size=512),
    st.builds(
        lambda name, kind, size, body: raw(name, kind, b"%o" % size, body),
        st.binary(min_size=1, max_size=60),
        st.sampled_from([b"0", b"1", b"2", b"5", b"6", b"x", b"g", b"L", b"K", b"S", b"\0"]),
        st.integers(0, 1200),
        st.binary(max_size=600),
    ),
    st.builds(
        lambda key, value: pax(record(key, value)), st.binary(max_size=20), st.binary(max_size=80)
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(blocks, max_size=6).map(b"".join))
def test_85_random_blocks_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        unpack(folder, data)
    except ImageError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_85_flipped_bytes_are_read_or_refused(data):
    whole = bytearray(
        layer(entry("a/"), entry("a/" + "b" * 120, b"x" * 700), symlink("l", "t" * 150))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        for found in TarReader(io.BytesIO(bytes(whole))):
            assert found.size >= 0
    except ImageError:
        pass
