"""Attributes: file capabilities are the image's, whichever namespace wrote them."""

from __future__ import annotations

import struct

import pytest

from container_kernel.oci.idmap import IdMap
from container_kernel.oci.xattr import disk_capability, image_capability, overlay_name

SETS = 0x2000, 0, 0, 0
PLAIN = struct.pack("<5I", 0x02000001, *SETS)


def stamped(root: int) -> bytes:
    return struct.pack("<6I", 0x03000001, *SETS, root)


@pytest.mark.parametrize(
    ("idmap", "root"),
    [(IdMap.identity(), 0), (IdMap.keep_user(65536), 1), (IdMap.single(), 0)],
    ids=["root", "user", "single id"],
)
def test_a_capability_of_the_images_root_loses_its_id(idmap, root):
    assert image_capability(stamped(root), idmap) == PLAIN
    assert image_capability(PLAIN, idmap) == PLAIN


def test_a_capability_of_somebody_else_means_nothing():
    assert image_capability(stamped(1000), IdMap.identity()) is None
    assert image_capability(stamped(0), IdMap.keep_user(65536)) is None


@pytest.mark.parametrize("value", [b"", b"\0", PLAIN[:-1], PLAIN + b"\0", b"\xff" * 20, bytes(20)])
def test_what_is_no_capability_is_left_out(value):
    assert disk_capability(value) is None
    assert image_capability(value, IdMap.identity()) is None


def test_overlayfs_has_two_sets_of_names():
    assert overlay_name("opaque", userxattr=False) == "trusted.overlay.opaque"
    assert overlay_name("opaque", userxattr=True) == "user.overlay.opaque"
