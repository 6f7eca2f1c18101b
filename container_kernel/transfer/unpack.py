"""Unpack: a layer's bytes to a tree in the store, checked against what it was said to be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageError
from ..oci.digest import Digest
from ..oci.idmap import IdMap
from .box import Unpacked, unpack_boxed


def unpack_rootfs(
    source: BinaryIO | int, target: Path, *, idmap: IdMap, userxattr: bool
) -> Unpacked:
    """Unpack a whole file system's tar, plain or compressed, from a file or a pipe.

    Raises:
        ImageError: the tar is malformed or not allowed; ``target`` is half made then.
    """
    fd = source if isinstance(source, int) else source.fileno()
    return unpack_boxed(fd, target, idmap=idmap, userxattr=userxattr)


def unpack_layer(
    blob: Path,
    target: Path | None,
    *,
    diff_id: Digest,
    compression: str,
    idmap: IdMap,
    userxattr: bool,
    parents: Sequence[Path] = (),
) -> Unpacked:
    """Unpack the layer in the file ``blob``; without ``target``, only check it.

    Raises:
        ImageError: it is not what ``diff_id`` and ``compression`` say.
    """
    fd = os.open(blob, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = unpack_boxed(fd, target, idmap=idmap, userxattr=userxattr, parents=parents)
    finally:
        os.close(fd)
    return check_layer(found, diff_id, compression)


def check_layer(found: Unpacked, diff_id: Digest, compression: str) -> Unpacked:
    """Return ``found`` if it is the layer that was promised.

    Raises:
        ImageError: it is not.
    """
    if found.compression != compression:
        raise ImageError(f"it is declared as {compression}, its bytes are {found.compression}")
    if found.diff_id != diff_id:
        raise ImageError(
            f"it unpacks to {found.diff_id.short}, the image config says {diff_id.short}"
        )
    return found
