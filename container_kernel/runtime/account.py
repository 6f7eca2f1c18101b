"""Account: who run cells are, and the passwd and group files that say so inside.

Known before anything is mounted: the files are read from the layers themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..oci.digest import Digest
from ..record import field, record
from ..store.shelf import Shelf
from .bundle import DEFAULT_PATH
from .identity import User, read_file, resolve_user

if TYPE_CHECKING:
    from ..oci.spec import ImageConfig

RUN_UID = 1000
"""Who run cells are unless the image or the user says otherwise."""
_NAME = "user"
_ROOT_NAMES = ("", "0", "root", "0:0", "root:root")


@record
class Account:
    """A user of the image. ``texts`` are files to show inside, where the image lacks the user."""

    user: User
    texts: Mapping[str, str] = field(default_factory=dict)


ROOT = Account(User(0, 0, name="root", home="/root"))


def ordinary(store: Shelf, chain: Digest, wanted: str) -> Account:
    """The user ``wanted`` of an image, or uid 1000 where that is root or nobody.

    Raises:
        CellError: the image has no user of that name.
    """
    passwd = _topmost(store, chain, "/etc/passwd")
    group = _topmost(store, chain, "/etc/group")
    text = str(RUN_UID) if wanted in _ROOT_NAMES else wanted
    user = resolve_user(passwd, group, text)
    if user.name:
        return Account(user)
    gid = user.gid if ":" in text else user.uid
    named = User(user.uid, gid, user.groups, _NAME, f"/home/{_NAME}")
    rows = {
        "/etc/passwd": f"{passwd}{_NAME}:x:{named.uid}:{gid}::{named.home}:/bin/sh\n",
        "/etc/group": f"{group}{_NAME}:x:{gid}:\n",
    }
    return Account(named, rows)


def environment(config: ImageConfig, user: User, more: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process of ``user``; the image's, and ``more``, which win."""
    image_env = dict(pair.partition("=")[::2] for pair in config.env)
    image_env.pop("", None)  # runc would not start it
    return {
        "PATH": DEFAULT_PATH,
        "LC_ALL": "C.UTF-8",
        **image_env,
        "HOME": user.home,
        "USER": user.name,
        "LOGNAME": user.name,
        **more,
    }


def _topmost(store: Shelf, chain: Digest, path: str) -> str:
    """A file of the image as text that ends in a newline; empty when there is none."""
    for snapshot in reversed(store.snapshots.chain(chain)):
        fd = os.open(snapshot.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            text = read_file(fd, path)
        finally:
            os.close(fd)
        if text is not None:
            return text if text.endswith("\n") or not text else text + "\n"
    return ""
