"""Other tools read what we save, and we read what they write; digests are equal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from container_kernel.oci.spec import Manifest
from container_kernel.transfer.archive import save
from container_kernel.transfer.load import load
from tests.transfer.layouts import Layout, layer_tar
from tests.transfer.test_archive import built, other

pytestmark = pytest.mark.privileged
__all__ = ["built", "other"]

TREE = {"etc/": b"", "etc/motd": b"hello", "é" * 60 + "/": b"", "é" * 60 + "/" + "f" * 120: b"long"}


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*argv: object) -> str:
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*argv: object) -> str:
    return run(tool("skopeo"), "--insecure-policy", *argv)


@pytest.mark.parametrize("format", ["oci-archive", "oci"])
def test_skopeo_sees_our_digest(store, built, tmp_path, format):
    save(built, tmp_path / "out", format, store=store, ref="made/here:1")
    found = json.loads(skopeo("inspect", f"{format}:{tmp_path}/out:made/here:1"))
    assert found["Digest"] == str(built)
    assert found["Layers"] == [str(layer.digest) for layer in store.manifest(built).layers]


def test_skopeo_copies_our_docker_archive(store, built, tmp_path):
    save(built, tmp_path / "out", "docker-archive", store=store, ref="made/here:1")
    skopeo("copy", f"docker-archive:{tmp_path}/out:made/here:1", f"dir:{tmp_path}/copy")
    manifest = Manifest.from_json((tmp_path / "copy/manifest.json").read_bytes())
    assert manifest.config.digest == store.manifest(built).config.digest


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci"])
def test_what_skopeo_writes_is_loaded(store, built, other, tmp_path, form):
    save(built, tmp_path / "ours", store=store, ref="made/here:1")
    name = ":v1" if form == "oci" else ":made/here:1"
    skopeo("copy", f"oci-archive:{tmp_path}/ours", f"{form}:{tmp_path}/theirs{name}")
    ((found, image),) = load(tmp_path / "theirs", other)
    # In docker archives skopeo puts a registry in front.
    assert found.endswith("theirs:v1" if form == "oci" else "made/here:1")
    assert other.manifest(image).config.digest == store.manifest(built).config.digest


def test_what_skopeo_packs_with_zstd_is_loaded(store, built, other, tmp_path):
    save(built, tmp_path / "ours", store=store)
    compress = ["--dest-compress", "--dest-compress-format", "zstd"]
    skopeo("copy", *compress, f"oci-archive:{tmp_path}/ours", f"oci:{tmp_path}/theirs:v1")
    ((_, image),) = load(tmp_path / "theirs", other)
    assert {layer.media_type.rpartition("+")[2] for layer in other.manifest(image).layers} == {
        "zstd"
    }


def test_umoci_unpacks_the_same_files(store, tmp_path):
    tool("umoci")
    ((_, image),) = load(Layout(layer_tar(TREE)).archive(tmp_path / "in.tar"), store)
    save(image, tmp_path / "layout", "oci", store=store, ref="v1")
    options = [] if os.geteuid() == 0 and "0 4294967295" in id_map() else ["--rootless"]
    run("umoci", "raw", "unpack", *options, "--image", f"{tmp_path}/layout:v1", tmp_path / "rootfs")
    (snapshot,) = store.snapshots.walk()
    assert listing(tmp_path / "rootfs") == listing(snapshot.path)


def id_map() -> str:
    return " ".join(Path("/proc/self/uid_map").read_text().split())


def listing(root: Path) -> list[tuple[str, int, bytes]]:
    return [
        (
            str(path.relative_to(root)),
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(root.rglob("*"))
        if path.name != ".umoci"
    ]


def test_umoci_stat_and_oci_image_tool_are_content(store, built, tmp_path):
    save(built, tmp_path / "layout", "oci", store=store, ref="v1")
    found = json.loads(run(tool("umoci"), "stat", "--json", "--image", f"{tmp_path}/layout:v1"))
    assert not found["history"]
    if shutil.which("oci-image-tool"):
        run(
            "oci-image-tool",
            "validate",
            "--type",
            "imageLayout",
            "--ref",
            "name=v1",
            tmp_path / "layout",
        )


def test_what_umoci_repacks_is_loaded(store, built, tmp_path):
    """Umoci's own layers, with a whiteout, on top of ours."""
    tool("umoci")
    if os.geteuid() != 0 or "0 4294967295" not in id_map():
        pytest.skip("umoci's bundles need real root")
    save(built, tmp_path / "layout", "oci", store=store, ref="v1")
    image = f"{tmp_path}/layout:v1"
    run("umoci", "unpack", "--image", image, tmp_path / "bundle")
    (tmp_path / "bundle/rootfs/etc/motd").unlink()
    (tmp_path / "bundle/rootfs/new").write_text("new")
    run("umoci", "repack", "--image", f"{tmp_path}/layout:v2", tmp_path / "bundle")
    found = dict(load(tmp_path / "layout", store))
    config = store.image_config(store.manifest(found["layout:v2"]))
    top = store.snapshots.chain(store.image_chain(config))[-1]
    assert (top.path / "etc/motd").is_char_device()
    assert (top.path / "new").read_text() == "new"


def test_buildah_takes_our_image_and_gives_it_back(store, built, other, tmp_path):
    tool("buildah")
    if os.geteuid() != 0 or "0 4294967295" not in id_map():
        pytest.skip("buildah's storage needs real root here")
    save(built, tmp_path / "ours", store=store, ref="made/here:1")
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    storage = [f"--root={tmp_path}/storage", f"--runroot={tmp_path}/run", "--storage-driver=vfs"]
    policy = f"--signature-policy={tmp_path}/policy.json"
    image_id = run("buildah", *storage, "pull", "--quiet", policy, f"oci-archive:{tmp_path}/ours")
    assert image_id.strip() == store.manifest(built).config.digest.hex
    theirs = f"oci-archive:{tmp_path}/theirs:made/here:1"
    run("buildah", *storage, "push", "--quiet", policy, image_id.strip(), theirs)
    ((_, image),) = load(tmp_path / "theirs", other)
    assert other.manifest(image).config.digest == store.manifest(built).config.digest
