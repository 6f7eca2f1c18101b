"""Saving images: what leaves is what its digest says."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from container_kernel.errors import BlobDamaged, BlobNotFound, StoreError, UsageError
from container_kernel.oci.changeset import tree_digest
from container_kernel.oci.digest import Digest
from container_kernel.oci.spec import Descriptor, ImageConfig, MediaType
from container_kernel.store.store import Store
from container_kernel.transfer.archive import FORMATS, save
from container_kernel.transfer.load import load
from tests.transfer.layouts import ARCHITECTURE, Layout, digest, layer_tar

pytestmark = pytest.mark.privileged


@pytest.fixture
def built(store) -> Digest:
    """An image made here: a frozen tree without a blob."""
    active = store.snapshots.prepare(None)
    root = store.idmap.to_disk(0)
    (active.upper / "etc").mkdir()
    (active.upper / "etc/motd").write_text("hello")
    (active.upper / "big").write_bytes(os.urandom(2 << 20))
    for path in (active.upper / "etc", active.upper / "etc/motd", active.upper / "big"):
        os.chown(path, root, root)
        os.utime(path, (1, 1))
    options = {"idmap": store.idmap, "userxattr": store.userxattr}
    diff_id, size = tree_digest(active.upper, **options)
    store.snapshots.commit(active, diff_id, size, "by hand")
    config = ImageConfig(ARCHITECTURE, "linux", diff_ids=(diff_id,), cmd=("/bin/sh",))
    return store.put_image(config, [Descriptor(MediaType.LAYER, diff_id, size)])


@pytest.fixture
def other(tmp_path, entered):
    """A second, empty store."""
    store = Store(tmp_path / "other", entered.idmap, userxattr=entered.is_rootless)
    yield store
    store.close()


@pytest.mark.parametrize("format", FORMATS)
def test_a_built_image_comes_back_with_its_digest(store, built, other, tmp_path, format):
    save(built, tmp_path / "out", format, store=store, ref="made/here:1")
    ((name, image),) = load(tmp_path / "out", other)
    assert (name, image) == ("made/here:1", built)


@pytest.mark.parametrize("format", ["oci-archive", "oci"])
def test_an_imported_image_keeps_its_digest(store, other, tmp_path, format):
    layout = Layout(layer_tar({"a": b"x"}), layer_tar({"b": b"y"}), compress=True)
    (tmp_path / "in").mkdir()
    ((name, image),) = load(layout.write(tmp_path / "in"), store)
    save(image, tmp_path / "out", format, store=store, ref=name)
    assert load(tmp_path / "out", other) == [(name, image)]


def test_a_compressed_image_is_plain_in_a_docker_archive(store, other, tmp_path):
    tar = layer_tar({"a": b"x"})
    layout = Layout(tar, tar, compress=True)
    (tmp_path / "in").mkdir()
    ((_, image),) = load(layout.write(tmp_path / "in"), store)
    save(image, tmp_path / "out", "docker-archive", store=store)
    with tarfile.open(tmp_path / "out") as archive:
        (entry,) = json.load(archive.extractfile("manifest.json"))
        assert entry["Layers"] == [digest(tar)[7:] + ".tar"] * 2
        assert archive.extractfile(entry["Layers"][0]).read() == tar
    ((_, again),) = load(tmp_path / "out", other)
    assert other.manifest(again).config.digest == store.manifest(image).config.digest


@pytest.mark.parametrize("format", ["oci-archive", "docker-archive"])
def test_saving_twice_gives_the_same_bytes(store, built, tmp_path, format):
    for name in ("one", "two"):
        save(built, tmp_path / name, format, store=store, ref="x:1")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_existing_file_is_replaced_and_a_folder_is_not(store, built, tmp_path):
    (tmp_path / "file").write_text("old")
    save(built, tmp_path / "file", store=store)
    assert (tmp_path / "file").stat().st_size > 2 << 20
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        save(built, tmp_path / "folder", "oci", store=store)
    assert os.listdir(tmp_path / "folder") == ["mine"]


def damage_tree(store) -> None:
    (snapshot,) = store.snapshots.walk()
    (snapshot.path / "etc/motd").write_text("jello")
    os.utime(snapshot.path / "etc/motd", (1, 1))


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_tree_does_not_leave(store, built, tmp_path, format):
    damage_tree(store)
    with pytest.raises(StoreError, match="changed in the store"):
        save(built, tmp_path / "out", format, store=store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_blob_does_not_leave(store, tmp_path, format):
    layout = Layout(layer_tar({"a": b"x"}))
    ((_, image),) = load(layout.archive(tmp_path / "in.tar"), store)
    blob = store.content.path(Digest(layout.layers[0]["digest"]))
    blob.write_bytes(blob.read_bytes().replace(b"x", b"y"))
    with pytest.raises(BlobDamaged):
        save(image, tmp_path / "out", format, store=store)
    assert not (tmp_path / "out").exists()


def test_a_missing_blob_is_named(store, tmp_path):
    layout = Layout(layer_tar({"a": b"x"}), compress=True)
    ((_, image),) = load(layout.archive(tmp_path / "in.tar"), store)
    store.content.delete(Digest(layout.layers[0]["digest"]))
    with pytest.raises(BlobNotFound):
        save(image, tmp_path / "out", store=store)
    with pytest.raises(BlobNotFound):
        save(Digest.of(b"nothing"), tmp_path / "out", store=store)


def test_a_place_that_cannot_be_written_is_named(store, built, tmp_path):
    with pytest.raises(UsageError, match="missing does not exist"):
        save(built, Path(tmp_path / "missing/out"), store=store)
