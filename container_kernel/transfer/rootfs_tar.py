"""A tar that is nothing but a root file system becomes an image of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.digest import Digest
from ..oci.spec import Descriptor, ImageConfig
from .intake import LAYER_TYPES, host_platform
from .unpack import unpack_rootfs

if TYPE_CHECKING:
    from ..store.store import Store

_TOP_FOLDERS = ("bin", "etc", "lib", "sbin", "usr")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def looks_like_one(names: set[str]) -> bool:
    """True when files lie where those of a root file system lie."""
    return any(name.partition("/")[0] in _TOP_FOLDERS and "/" in name for name in names)


def take(path: Path, store: Store) -> Digest:
    """Read the tar, plain or compressed, into the store; returns the image's manifest digest.

    Raises:
        ImageError: it is malformed or not allowed.
    """
    with path.open("rb") as file:
        blob = store.content.put(file)
    active = store.snapshots.prepare(None)
    try:
        with store.content.open(blob.digest) as source:
            found = unpack_rootfs(
                source, active.upper, idmap=store.idmap, userxattr=store.userxattr
            )
        store.snapshots.commit(active, found.diff_id, found.size, f"import {path.name}")
    except BaseException:
        store.snapshots.remove(active)
        raise
    platform = host_platform()
    config = ImageConfig(
        platform.architecture,
        platform.os,
        env=(_PATH,),
        cmd=("/bin/sh",),
        diff_ids=(found.diff_id,),
    )
    layer = Descriptor(LAYER_TYPES[found.compression], blob.digest, blob.size)
    return store.put_image(config, [layer])
