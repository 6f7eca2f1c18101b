"""Layers unpacked side by side come out as one by one, whatever happens to one of them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from container_kernel.errors import ImageError
from container_kernel.oci.spec import ImageConfig, Manifest
from container_kernel.store.store import Store
from container_kernel.transfer.intake import Intake
from tests.transfer.layouts import Layout, layer_tar, text

pytestmark = pytest.mark.privileged


def sticky(*names: str) -> bytes:
    """A layer of folders that anybody may write to, and of one big file that takes its time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o1777, 7
            archive.addfile(info)
        info = tarfile.TarInfo("big")
        info.size = 4 << 20
        archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    return out.getvalue()


BASE = sticky("tmp")
TOPS = [layer_tar({f"tmp/{number}": b""}) for number in range(6)]  # "tmp" is not described


def take(store: Store, layout: Layout, before=lambda layer: None):
    """Import an image; ``before`` is called before each layer arrives."""
    layout.finish()

    def fetch(layer) -> None:
        before(layer)
        store.content.put(layout.blobs[str(layer.digest)])

    manifest, config = (text(document) for document in (layout.manifest, layout.config))
    digest = Intake(store, lambda _: None).put(
        manifest, Manifest.from_json(manifest), config, fetch
    )
    chain = store.image_chain(ImageConfig.from_json(config))
    return digest, [snapshot.path for snapshot in store.snapshots.chain(chain)]


def modes(trees: list[Path]) -> set[tuple[int, float]]:
    return {(stat.S_IMODE((t / "tmp").stat().st_mode), (t / "tmp").stat().st_mtime) for t in trees}


def boxes() -> list[str]:
    """The children of ours that unpack."""
    pids = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in pids if b"transfer.box" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_folder_takes_after_one_of_a_layer_that_was_still_being_unpacked(store):
    _, trees = take(store, Layout(BASE, *TOPS, compress=True))
    assert len(trees) == 7
    assert modes(trees) == {(0o1777, 7)}


def test_another_process_may_freeze_a_layer_first(store, entered):
    """Ours is gone then, and what was to stand on it starts again."""
    other = Store(store.home, entered.idmap, userxattr=entered.is_rootless)
    layout, seen = Layout(BASE, *TOPS, compress=True), []

    def before(layer) -> None:
        seen.append(layer)
        if len(seen) == 2:
            take(other, Layout(BASE, compress=True))

    _, trees = take(store, layout, before)
    other.close()
    assert modes(trees) == {(0o1777, 7)}
    assert not any((store.home / "active").iterdir())


def test_what_is_below_a_bad_layer_is_kept_and_nothing_else(store):
    layout = Layout(BASE, *TOPS, compress=True)
    layout.config["rootfs"]["diff_ids"][3] = "sha256:" + "0" * 64
    with pytest.raises(ImageError, match=r"layer 4 \(.*unpacks to"):
        take(store, layout)
    assert len(store.snapshots.walk()) == 3
    assert not any((store.home / "active").iterdir())
    assert boxes() == []


def test_an_interrupt_ends_all_boxes(store):
    def before(layer) -> None:
        if boxes():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(store, Layout(BASE, *TOPS, compress=True), before)
    assert boxes() == []
    assert not any((store.home / "active").iterdir())
