"""Which extended attributes belong to an image, and how they are written.

Kept: the user's own (``user.*``) and file capabilities. Everything else describes the host that
made the file: labels of its security module, access lists naming its users, overlayfs's own notes.
Those would make a layer differ from host to host, or steer the overlay of whoever mounts it
(CVE-2023-0386), so they are neither written into a layer nor taken out of one.
"""

from __future__ import annotations

import struct

from .idmap import IdMap

CAPABILITY = b"security.capability"

_REVISION_MASK = 0xFF000000
_REVISION_2 = 0x02000000
_REVISION_3 = 0x03000000


def overlay_name(word: str, *, userxattr: bool) -> str:
    """The attribute overlayfs keeps ``word`` under, for example ``opaque``."""
    return f"{'user' if userxattr else 'trusted'}.overlay.{word}"


def is_kept(name: bytes) -> bool:
    """True for an attribute that is part of the image."""
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name == CAPABILITY


def image_capability(value: bytes, idmap: IdMap) -> bytes | None:
    """The capability ``value`` read on this host, as an image has it.

    Linux stamps capabilities set in a user namespace with that namespace's root (revision 3,
    capabilities(7)). In an image they belong to the image's root, which revision 2 says without
    an id. One stamped with another id means nothing elsewhere: None.
    """
    revision = _revision(value)
    if revision == _REVISION_2 and len(value) == 20:
        return value
    if revision == _REVISION_3 and len(value) == 24:
        flags, *sets, root = struct.unpack("<6I", value)
        if idmap.to_image(root) == 0:
            return struct.pack("<5I", flags & ~_REVISION_MASK | _REVISION_2, *sets)
    return None


def disk_capability(value: bytes) -> bytes | None:
    """The capability ``value`` of a layer as we write it to disk, None when it is malformed.

    Only the form without an id is passed on: Linux then stamps it with our namespace's root.
    """
    return image_capability(value, IdMap.identity())


def _revision(value: bytes) -> int:
    return int(struct.unpack_from("<I", value)[0]) & _REVISION_MASK if len(value) >= 4 else 0
