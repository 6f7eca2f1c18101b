"""Slugs: an image as one file that is mounted, not unpacked."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from container_kernel.errors import HostError, ImageError, StoreError, UsageError
from container_kernel.runtime import slug
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.live import Live
from container_kernel.runtime.wish import Wish
from container_kernel.store.store import Store
from container_kernel.transfer.load import load
from tests.transfer.layouts import MTIME, Layout, layer_tar

pytestmark = pytest.mark.privileged


@pytest.fixture
def image(store, tmp_path):
    busybox = Path("/bin/busybox").read_bytes()
    base = layer_tar(
        {
            "bin/": b"",
            "bin/sh": busybox,
            "bin/stat": busybox,
            "old": b"old",
            "d/": b"",
            "d/below": b"",
        }
    )
    top = layer_tar(
        {"hello": b"hello", ".wh.old": b"", "d/": b"", "d/.wh..wh..opq": b"", "d/b": b""}
    )
    (tmp_path / "layout").mkdir()
    config = {"config": {"Env": ["GREETING=hi"], "Cmd": ["/bin/sh"]}}
    ((_, digest),) = load(Layout(base, top, **config).write(tmp_path / "layout"), store)
    return digest


@pytest.fixture(params=slug.FORMATS)
def form(request, store):
    tool = {"sqfs": "mksquashfs", "erofs": "mkfs.erofs"}[request.param]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    if request.param == "erofs" and not store.idmap.is_identity:
        pytest.skip("an EROFS slug is made by root")
    return request.param


def test_the_same_image_gives_the_same_file(store, image, tmp_path, form):
    first = slug.make(store, image, tmp_path / "1.x", form)
    time.sleep(1.1)  # times are in whole seconds
    second = slug.make(store, image, tmp_path / "2.x", form)
    found = hashlib.sha256((tmp_path / "1.x").read_bytes()).hexdigest()
    assert first == second
    assert first.hex == found


@pytest.fixture
def mountable(store, form):
    """Root mounts by the host kernel, others by FUSE if they have it."""
    if store.userxattr and not os.access("/dev/fuse", os.W_OK):
        pytest.skip("/dev/fuse is not open to users here")
    return form


@pytest.fixture
def lent(host, tmp_path, entered):
    """A store that has nothing of the image."""
    store = Store(tmp_path / "lent", entered.idmap, userxattr=entered.is_rootless)
    yield store
    store.close()


def said(host, store, made, folder):
    """What a container on a slug says of its files."""
    wish = Wish(limits=Limits(pids=100))
    live = Live(host, store, made.chain_id, made.config, folder, wish)
    try:
        words = (
            "read x < /hello; echo $x $GREETING; stat -c %Y /hello; echo new > /new; "
            "test -e /old || echo gone; echo /d/*"
        )
        container = live.start(["/bin/sh", "-c", words], {})
        out = b""
        while piece := os.read(container.stdout, 4096):
            out += piece
        assert container.delete().status == 0
    finally:
        live.close()
    return out.decode().split()


def test_a_slug_runs_without_being_unpacked(store, image, host, lent, tmp_path, mountable):
    path = tmp_path / f"i.{mountable}"
    digest = slug.make(store, image, path, mountable)
    made = slug.attach(host, lent, f"{path}@{digest}", tmp_path)
    assert said(host, lent, made, tmp_path) == ["hello", "hi", str(MTIME), "gone", "/d/b"]
    assert not lent.snapshots.walk()
    assert not list(lent.content.walk())


def test_the_slug_of_a_layer_runs_on_the_layers_below(
    store, image, host, lent, tmp_path, mountable
):
    form = mountable
    path = tmp_path / f"top.{form}"
    digest = slug.make(store, image, path, form, layer=2)
    time.sleep(1.1)  # times are in whole seconds
    assert slug.make(store, image, tmp_path / "again", form, layer=2) == digest
    with pytest.raises(StoreError, match="is not in the store"):
        slug.attach(host, lent, f"{path}@{digest}", tmp_path)
    base = store.content.read(store.manifest(image).layers[0].digest)
    (tmp_path / "base").mkdir()
    load(Layout(base).write(tmp_path / "base"), lent)
    made = slug.attach(host, lent, f"{path}@{digest}", tmp_path)
    assert said(host, lent, made, tmp_path) == ["hello", "hi", str(MTIME), "gone", "/d/b"]
    time.sleep(1.1)  # a whiteout has the time of its unpacking
    ((_, there),) = load(tmp_path / "layout", lent)
    assert slug.make(lent, there, tmp_path / "elsewhere", form, layer=2) == digest
    assert len(lent.snapshots.walk()) == 2
    with pytest.raises(UsageError, match="no layer 3"):
        slug.make(store, image, path, form, layer=3)


def test_a_layer_that_replaces_all_below_it_has_no_slug_of_its_own(store, tmp_path):
    base, top = layer_tar({"old": b"old"}), layer_tar({".wh..wh..opq": b"", "new": b"new"})
    (tmp_path / "layout").mkdir()
    ((_, image),) = load(Layout(base, top).write(tmp_path / "layout"), store)
    with pytest.raises(StoreError, match=r"replaces all below it(?s:.*)whole image"):
        slug.make(store, image, tmp_path / "top.sqfs", layer=2)
    assert slug.make(store, image, tmp_path / "all.sqfs")
    assert sorted(path.name for path in tmp_path.glob("*.sqfs")) == ["all.sqfs"]


def test_a_slug_with_another_digest_is_not_mounted(store, image, host, tmp_path, mountable):
    path = tmp_path / f"i.{mountable}"
    slug.make(store, image, path, mountable)
    with pytest.raises(ImageError, match="another digest"):
        slug.attach(host, store, f"{path}@sha256:{'0' * 64}", tmp_path)


@pytest.mark.parametrize("data", [b"", b"x" * 5000, b"hsqs" + bytes(5000), b"x" * 24])
def test_what_is_no_slug_is_refused(store, host, tmp_path, data):
    (tmp_path / "i.sqfs").write_bytes(data)
    with pytest.raises(ImageError, match="no slug"):
        slug.attach(host, store, "i.sqfs", tmp_path)


def test_what_is_no_file_is_no_slug(store, host, tmp_path):
    (tmp_path / "i.sqfs").mkdir()
    with pytest.raises(ImageError, match="not a plain file"):
        slug.attach(host, store, "i.sqfs", tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        slug.attach(host, store, "missing.sqfs", tmp_path)


def test_a_file_that_is_no_file_system_is_refused(store, host, tmp_path):
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    tail = config + len(config).to_bytes(8, "little") + b"container-kernel"
    (tmp_path / "i.sqfs").write_bytes(bytes(4096) + tail)
    with pytest.raises(ImageError, match="neither a SquashFS nor"):
        slug.attach(host, store, "i.sqfs", tmp_path)
    (tmp_path / "i.erofs").write_bytes(bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(3068) + tail)
    with pytest.raises(HostError, match=r"cannot be mounted|erofsfuse is not.*\n.*--format sqfs"):
        slug.attach(host, store, "i.erofs", tmp_path)
    (tmp_path / "i.sqfs").write_bytes(b"hsqs" + bytes(4092) + tail)
    with pytest.raises(HostError, match=r"cannot be mounted|by FUSE"):
        slug.attach(host, store, "i.sqfs", tmp_path)


def test_other_tools_read_it(store, image, tmp_path):
    if shutil.which("unsquashfs") is None:
        pytest.skip("unsquashfs is not installed")
    slug.make(store, image, tmp_path / "i.sqfs")
    listed = subprocess.run(
        ["unsquashfs", "-lln", tmp_path / "i.sqfs"], capture_output=True, text=True, check=True
    ).stdout
    assert "0/0" in listed
    assert "squashfs-root/hello" in listed
    assert "squashfs-root/old" not in listed
