"""Loading images: right ones become trees, wrong ones are refused by name and leave no image."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from container_kernel.errors import ImageError, StoreError
from container_kernel.oci.digest import Digest
from container_kernel.store.store import Store
from container_kernel.transfer.load import load
from tests.store.whole import wait_for_a_tick
from tests.transfer.layouts import (
    ARCHITECTURE,
    INDEX,
    LAYER,
    MANIFEST,
    Layout,
    digest,
    docker_archive,
    layer_tar,
    text,
)

pytestmark = pytest.mark.privileged

BASE = layer_tar({"etc/": b"", "etc/motd": b"hello", "tmp/": b""})
TOP = layer_tar({"etc/.wh.motd": b"", "new": b"file"})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "image").mkdir()
    return tmp_path / "image"


def trees(store, image: Digest) -> list[list[str]]:
    """The names in each layer's tree."""
    manifest = store.manifest(image)
    chain = store.snapshots.chain(store.image_chain(store.image_config(manifest)))
    return [
        sorted(str(path.relative_to(snapshot.path)) for path in snapshot.path.rglob("*"))
        for snapshot in chain
    ]


def is_empty(store) -> bool:
    """No image and no unpacked layer (blobs that arrived are garbage, and will be collected)."""
    return not store.snapshots.walk() and not any((store.home / "active").iterdir())


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_a_layout_folder(store, place, compress):
    layout = Layout(BASE, TOP, compress=compress)
    ((name, image),) = load(layout.write(place), store)
    assert (name, str(image)) == ("example:1.0", layout.descriptor["digest"])
    assert trees(store, image) == [["etc", "etc/motd", "tmp"], ["etc", "etc/motd", "new"]]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_oci_archive(store, tmp_path, pack):
    layout = Layout(BASE)
    path = layout.archive(tmp_path / "image.tar")
    path.write_bytes(pack(path.read_bytes()))
    ((_, image),) = load(path, store)
    assert str(image) == layout.descriptor["digest"]


def test_zstd_layers_and_archives(store, tmp_path):
    zstandard = pytest.importorskip("zstandard")
    layout = Layout(BASE)
    packed = zstandard.compress(BASE)
    layout.layers = [layout.add(packed, LAYER + "+zstd")]
    path = layout.finish().archive(tmp_path / "image.tar.zst")
    path.write_bytes(zstandard.compress(path.read_bytes()))
    ((_, image),) = load(path, store)
    assert trees(store, image) == [["etc", "etc/motd", "tmp"]]


def test_a_docker_archive(store, tmp_path):
    members = docker_archive(BASE, TOP, names=("a:1", "b/c:2"))
    path = tmp_path / "image.tar"
    path.write_bytes(layer_tar(members))
    found = load(path, store)
    assert [name for name, _ in found] == ["a:1", "b/c:2"]
    assert len({image for _, image in found}) == 1
    assert len(trees(store, found[0][1])) == 2


def test_two_images_of_a_docker_archive_are_two(store, tmp_path):
    first, second = docker_archive(BASE, names=("a:1",)), docker_archive(TOP, names=("b:1",))
    (other,) = json.loads(second.pop("manifest.json"))
    other["Layers"] = ["other/layer.tar"]
    second["other/layer.tar"] = second.pop("0/layer.tar")
    listed = [*json.loads(first["manifest.json"]), other]
    path = tmp_path / "image.tar"
    path.write_bytes(layer_tar({**first, **second, "manifest.json": text(listed)}))
    found = dict(load(path, store))
    assert [trees(store, found[name]) for name in ("a:1", "b:1")] == [
        [["etc", "etc/motd", "tmp"]],
        [["etc", "etc/motd", "new"]],
    ]


def test_loading_twice_is_loading_once(store, place):
    layout = Layout(BASE, compress=True)
    first = load(layout.write(place), store)
    before = list(store.snapshots.walk())
    assert load(place, store) == first
    assert list(store.snapshots.walk()) == before


def test_the_same_layer_twice_is_legal(store, place):
    layout = Layout(BASE, BASE)
    ((_, image),) = load(layout.write(place), store)
    assert len(trees(store, image)) == 2


def test_the_platform_of_this_host_is_chosen(store, place):
    layout = Layout(BASE)
    other = layout.add(
        text({"schemaVersion": 2}), MANIFEST, platform={"os": "linux", "architecture": "s390x"}
    )
    del layout.blobs[other["digest"]]  # an index may leave out what is for others
    ours = layout.descriptor | {"platform": {"os": "linux", "architecture": ARCHITECTURE}}
    nested = layout.add(
        text({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, ours]}), INDEX
    )
    layout.index["manifests"] = [nested]
    ((name, image),) = load(layout.write(place), store)
    assert (name, str(image)) == (None, ours["digest"])


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("a/b:1", "a/b:1"),
        ("v1", "image:v1"),
        ("", None),
        ("Bad Name:1", None),
        ("a/b", "a/b:latest"),
    ],
)
def test_names_come_from_the_annotation(store, place, ref, name):
    layout = Layout(BASE)
    layout.ref = ref
    assert load(layout.finish().write(place), store)[0][0] == name


def test_implied_folders_take_after_the_layer_below(store, place):
    base = io.BytesIO()
    with tarfile.open(fileobj=base, mode="w") as archive:
        info = tarfile.TarInfo("tmp")
        info.type, info.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(info)
    load(Layout(base.getvalue(), layer_tar({"tmp/x": b""})).write(place), store)
    modes = {
        oct((snapshot.path / "tmp").stat().st_mode & 0o7777) for snapshot in store.snapshots.walk()
    }
    assert modes == {"0o1777"}


def change(layout: Layout, what: str, value: bytes) -> None:
    """Other bytes under the digest of ``what``."""
    names = {
        "manifest": layout.descriptor,
        "config": layout.manifest["config"],
        "layer": layout.layers[0],
    }
    layout.blobs[names[what]["digest"]] = value


def same_size(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def bad_digest(what: str):
    def damage(layout: Layout) -> None:
        names = {
            "manifest": layout.descriptor,
            "config": layout.manifest["config"],
            "layer": layout.layers[0],
        }
        change(layout, what, same_size(layout.blobs[names[what]["digest"]]))

    return damage


def bad_size(what: str, by: int):
    def damage(layout: Layout) -> None:
        target = {"manifest": layout.descriptor, "layer": layout.layers[0]}.get(what)
        if what == "config":
            layout.manifest["config"]["size"] += by
            layout.index["manifests"] = [layout.add(text(layout.manifest), MANIFEST)]
        elif target is not None:
            target["size"] += by
            if what == "layer":
                layout.finish()

    return damage


def set_diff_ids(*ids: str):
    def damage(layout: Layout) -> None:
        layout.config["rootfs"]["diff_ids"] = list(ids)
        layout.finish()

    return damage


def set_manifest(**fields):
    def damage(layout: Layout) -> None:
        layout.manifest |= fields
        layout.index["manifests"] = [layout.add(text(layout.manifest), MANIFEST)]

    return damage


def set_layer_type(media_type: str):
    def damage(layout: Layout) -> None:
        layout.layers[0]["mediaType"] = media_type
        layout.finish()

    return damage


def nest(depth: int):
    def damage(layout: Layout) -> None:
        for _ in range(depth):
            data = text({"schemaVersion": 2, "manifests": layout.index["manifests"]})
            layout.index["manifests"] = [layout.add(data, INDEX)]

    return damage


def repeat(what: str, count: int):
    """A list that is far too long."""

    def damage(layout: Layout) -> None:
        if what == "manifests":
            layout.index["manifests"] = layout.index["manifests"] * count
        else:
            layout.layers = layout.layers[:1] * count
            layout.finish()

    return damage


def set_digest(value: str):
    def damage(layout: Layout) -> None:
        layout.layers[0]["digest"] = value
        layout.finish()

    return damage


def set_layout(**fields):
    def damage(layout: Layout) -> None:
        layout.config |= fields
        layout.finish()

    return damage


ZEROS = digest(b"")
NOT_OURS = "s390x"
WRONG = {
    "manifest bytes": (bad_digest("manifest"), "manifest .* hashes to"),
    "config bytes": (bad_digest("config"), "config .* hashes to"),
    "layer bytes": (bad_digest("layer"), "other bytes"),
    "manifest size +": (bad_size("manifest", 1), "manifest .* another size"),
    "manifest size -": (bad_size("manifest", -1), "manifest .* another size"),
    "config size +": (bad_size("config", 1), "config .* another size"),
    "config size -": (bad_size("config", -1), "config .* another size"),
    "layer size +": (bad_size("layer", 1), "its descriptor says"),
    "layer size -": (bad_size("layer", -1), "more than"),
    "huge manifest": (bad_size("manifest", 5 << 20), "longer than"),
    "wrong diff_id": (set_diff_ids(digest(BASE), ZEROS), "the image config says"),
    "diff_ids swapped": (set_diff_ids(digest(TOP), digest(BASE)), "the image config says"),
    "fewer diff_ids": (set_diff_ids(digest(BASE)), "2 layers, its config lists 1"),
    "more diff_ids": (set_diff_ids(digest(BASE), digest(TOP), ZEROS), "lists 3"),
    "no diff_ids": (set_diff_ids(), "lists 0"),
    "manifest and index": (set_manifest(manifests=[]), "two things"),
    "embedded media type": (set_manifest(mediaType=INDEX), "says it is"),
    "docker's media type": (
        set_manifest(mediaType="application/vnd.docker.distribution.manifest.v2+json"),
        "its descriptor",
    ),
    "foreign layer": (
        set_layer_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        "foreign.*layers are plain",
    ),
    "nondistributable layer": (
        set_layer_type("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        "nondistributable.*layers are plain",
    ),
    "encrypted layer": (set_layer_type(LAYER + "+gzip+encrypted"), "encrypted"),
    "erofs layer": (set_layer_type("application/vnd.erofs.layer.v1"), "erofs"),
    "declared gzip, is plain": (set_layer_type(LAYER + "+gzip"), "declared as gzip"),
    "declared zstd, is plain": (set_layer_type(LAYER + "+zstd"), "declared as zstd"),
    "artifact": (
        set_manifest(
            config={"mediaType": "application/vnd.oci.empty.v1+json", "digest": ZEROS, "size": 0}
        ),
        "no image: its config",
    ),
    "other architecture": (
        set_layout(architecture=NOT_OURS),
        f"linux/{NOT_OURS}; this host is linux",
    ),
    "other system": (set_layout(os="windows"), "windows.*this host is linux"),
    "deep index": (nest(6), "nested more than"),
    "very deep index": (nest(1000), "nested more than"),
    "100,000 manifests": (repeat("manifests", 100_000), "longer than 4 MiB"),
    "50,000 layers": (repeat("layers", 50_000), "longer than 4 MiB"),
    "600 layers": (repeat("layers", 600), "600 layers"),
    "digest with a path": (set_digest("sha256:../../../etc/passwd"), "not a sha256 digest"),
    "digest in capitals": (set_digest(ZEROS.upper()), "not a sha256 digest"),
    "short digest": (set_digest(ZEROS[:-1]), "not a sha256 digest"),
    "digest of another kind": (set_digest("sha512:" + "0" * 128), "not a sha256 digest"),
    "digest that is no text": (set_digest(7), "digest is not a string"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_wrong_image_is_refused_by_name(store, tmp_path, place, name, form):
    damage, message = WRONG[name]
    layout = Layout(BASE, TOP)
    damage(layout)
    path = layout.write(place) if form == "folder" else layout.archive(tmp_path / "i.tar")
    with pytest.raises(ImageError, match=message):
        load(path, store)
    known = {str(blob.digest) for blob in store.content.walk()}
    assert layout.descriptor["digest"] not in known


def test_layers_with_a_wrong_diff_id_leave_no_tree(store, place):
    layout = Layout(BASE, compress=True)
    layout.config["rootfs"]["diff_ids"] = [ZEROS]
    with pytest.raises(ImageError, match="unpacks to"):
        load(layout.finish().write(place), store)
    assert is_empty(store)


def test_a_known_tree_does_not_vouch_for_other_bytes(store, tmp_path, place):
    """The tree is there already; the blob that claims to be it is something else."""
    load(Layout(BASE).write(place), store)
    liar = Layout(BASE)
    liar.layers = [liar.add(gzip.compress(TOP), LAYER + "+gzip")]
    (tmp_path / "liar").mkdir()
    with pytest.raises(ImageError, match="unpacks to"):
        load(liar.finish().write(tmp_path / "liar"), store)


@pytest.mark.parametrize("is_changed", [False, True], ids=["touched", "changed"])
def test_what_is_loaded_stands_on_what_its_own_blobs_vouch_for(store, tmp_path, place, is_changed):
    """The layer below is there already, and nothing else tells any more what was in it."""
    load(Layout(BASE).write(place), store)
    for blob in [*store.content.walk()]:
        store.content.delete(blob.digest)
    (below,) = store.snapshots.walk()
    wait_for_a_tick()
    (below.path / "etc/motd").write_text("other" if is_changed else "hello")
    os.utime(below.path / "etc/motd", (0, 0))
    (tmp_path / "two").mkdir()
    image = Layout(BASE, TOP).write(tmp_path / "two")
    with closing(Store(store.home, store.idmap, userxattr=store.userxattr)) as another:
        if is_changed:
            with pytest.raises(StoreError, match=r"changed in the store \(/etc/motd\)"):
                load(image, another)
        else:
            assert load(image, another)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "missing"])
@pytest.mark.parametrize("which", ["manifest", "layer"])
def test_blobs_must_be_plain_files(store, tmp_path, place, kind, which):
    layout = Layout(BASE)
    layout.write(place)
    name = (layout.descriptor if which == "manifest" else layout.layers[0])["digest"]
    blob = place / "blobs" / name.replace(":", "/")
    blob.rename(tmp_path / "elsewhere")
    if kind == "symlink":
        blob.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(blob)
    elif kind == "folder":
        blob.mkdir()
    with pytest.raises(ImageError, match=r"not a plain file|cannot be read"):
        load(place, store)


def test_a_symlinked_blobs_folder_is_not_followed(store, tmp_path, place):
    Layout(BASE).write(place)
    (place / "blobs").rename(tmp_path / "blobs")
    (place / "blobs").symlink_to(tmp_path / "blobs")
    with pytest.raises(ImageError, match=r"plain file|cannot be read"):
        load(place, store)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither an OCI layout nor"),
        ({"index.json": b"{}", "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}, "version"),
        ({"index.json": b"{}", "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}, "schemaVersion"),
        (
            {
                "index.json": text({"schemaVersion": 2, "manifests": []}),
                "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            },
            "no image",
        ),
        ({"index.json": b"{}"}, "oci-layout"),
        ({"repositories": b"{}"}, "neither"),
    ],
)
def test_other_folders_are_refused(store, place, files, message):
    for name, data in files.items():
        (place / name).write_bytes(data)
    with pytest.raises(ImageError, match=message):
        load(place, store)


def test_other_files_are_refused(store, tmp_path):
    path = tmp_path / "x.tar"
    for data in (b"", b"hello", os.urandom(4096), gzip.compress(b"hello" * 1000)):
        path.write_bytes(data)
        with pytest.raises(ImageError):
            load(path, store)
    with pytest.raises(ImageError, match="No such file"):
        load(tmp_path / "missing.tar", store)
    with pytest.raises(ImageError, match="no file and no folder"):
        load(Path("/dev/null"), store)


def write_tar(path: Path, *entries: tuple[str, bytes | str]) -> Path:
    """Text makes a symbolic link, bytes a file."""
    with tarfile.open(path, "w") as archive:
        for name, value in entries:
            info = tarfile.TarInfo(name)
            if isinstance(value, str):
                info.type, info.linkname = tarfile.SYMTYPE, value
                archive.addfile(info)
            else:
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
    return path


def test_a_docker_layer_may_be_a_link_to_another(store, tmp_path):
    members = docker_archive(BASE, BASE)
    members.pop("1/layer.tar")
    path = write_tar(tmp_path / "i.tar", *members.items(), ("1/layer.tar", "../0/layer.tar"))
    ((_, image),) = load(path, store)
    assert len(trees(store, image)) == 2


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../etc/passwd", "1/layer.tar", "nowhere"]
)
def test_a_docker_layer_is_no_way_out(store, tmp_path, target):
    members = docker_archive(BASE, BASE)
    members.pop("1/layer.tar")
    path = write_tar(tmp_path / "i.tar", *members.items(), ("1/layer.tar", target))
    with pytest.raises(ImageError, match="no member"):
        load(path, store)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"[]", "not a list of images"),
        (b"{}", "not a list of images"),
        (b"[1]", "not an object"),
        (b'[{"Config":"/etc/passwd","Layers":[]}]', "no member"),
        (b'[{"Config":"../../etc/passwd","Layers":[]}]', "no member"),
        (b'[{"Config":1,"Layers":[]}]', "Config is not"),
        (b'[{"config":"x","Layers":[]}]', "some programs read as"),
        (b" " * (1 << 20) + b"[]", "longer than 1 MiB"),
        (b'[],"images":[]', "key twice"),
    ],
)
def test_a_bad_docker_manifest_is_refused(store, tmp_path, manifest, message):
    path = write_tar(tmp_path / "i.tar", ("manifest.json", manifest))
    with pytest.raises(ImageError, match=message):
        load(path, store)


def test_a_member_twice_is_refused(store, tmp_path):
    members = list(docker_archive(BASE).items())
    path = write_tar(tmp_path / "i.tar", *members, ("./0/layer.tar", TOP))
    with pytest.raises(ImageError, match="two members"):
        load(path, store)


def test_a_docker_layer_that_lies_about_its_diff_id(store, tmp_path):
    members = docker_archive(BASE) | {"0/layer.tar": TOP}
    with pytest.raises(ImageError, match="the image config says"):
        load(write_tar(tmp_path / "i.tar", *members.items()), store)
    assert is_empty(store)


def test_a_cut_off_archive_is_refused(store, tmp_path):
    path = Layout(BASE).archive(tmp_path / "i.tar")
    path.write_bytes(path.read_bytes()[:-11_000])
    with pytest.raises(ImageError):
        load(path, store)


def test_hostile_layers_are_refused_with_their_number(store, place):
    bad = io.BytesIO()
    with tarfile.open(fileobj=bad, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../escape"))
    with pytest.raises(ImageError, match=r"layer 2 \(sha256:.*'\.\.'"):
        load(Layout(BASE, bad.getvalue()).write(place), store)
    assert len(store.snapshots.walk()) == 1
    assert not any((store.home / "active").iterdir())


def test_progress_is_reported(store, place):
    lines: list[str] = []
    load(Layout(BASE, TOP).write(place), store, on_log=lines.append)
    assert [line.partition(":")[0] for line in lines] == ["layer 1 of 2", "layer 2 of 2"]


def test_documents_are_kept_byte_for_byte(store, place):
    layout = Layout(BASE)
    layout.manifest["org.example.unknown"] = {"kept": [1, 2]}
    layout.index["manifests"] = [
        layout.add(json.dumps(layout.manifest, indent=3).encode(), MANIFEST)
    ]
    ((_, image),) = load(layout.write(place), store)
    assert store.content.read(image) == json.dumps(layout.manifest, indent=3).encode()


def test_nothing_is_left_running_or_mounted(store, place):
    mounts = Path("/proc/self/mounts").read_text()
    load(Layout(BASE, TOP).write(place), store)
    assert Path("/proc/self/mounts").read_text() == mounts
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True
    )
    assert b"transfer.box" not in children.stdout


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_root_file_system_is_an_image_of_one_layer(store, tmp_path, pack):
    tar = layer_tar({"bin/": b"", "bin/sh": b"#!", "etc/": b"", "etc/motd": b"hello"})
    (tmp_path / "rootfs.tar").write_bytes(pack(tar))
    ((name, image),) = load(tmp_path / "rootfs.tar", store)
    assert name is None
    config = store.image_config(store.manifest(image))
    assert [str(one) for one in config.diff_ids] == [digest(tar)]
    (snapshot,) = store.snapshots.chain(store.image_chain(config))
    assert (snapshot.path / "etc/motd").read_bytes() == b"hello"


def test_a_tar_of_something_else_is_no_image(store, tmp_path):
    (tmp_path / "x.tar").write_bytes(layer_tar({"readme": b"hello", "data/": b"", "data/x": b""}))
    with pytest.raises(ImageError, match="neither an OCI layout nor"):
        load(tmp_path / "x.tar", store)


def test_a_known_image_is_not_read_again(store, tmp_path, place):
    layout = Layout(BASE, TOP, compress=True)
    ((_, image),) = load(layout.write(place), store)
    for layer in layout.layers:
        (place / "blobs" / layer["digest"].replace(":", "/")).unlink()
    ((_, again),) = load(place, store)
    assert again == image


def test_of_a_known_image_what_is_missing_is_read_again(store, place):
    layout = Layout(BASE, TOP, compress=True)
    load(layout.write(place), store)
    gone = Digest(layout.layers[0]["digest"])
    store.content.delete(gone)
    load(place, store)
    assert store.content.has(gone)
