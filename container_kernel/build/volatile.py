"""Volatile: files that package managers leave and that differ from run to run.

They are removed from the upper directory before it is frozen: not from the image. What lay below
shows again.
"""

from __future__ import annotations

import os
from pathlib import Path

RULES = {
    "/var/log/apt/history.log": "apt notes when it ran",
    "/var/log/apt/term.log": "apt notes when it ran",
    "/var/log/apt/eipp.log.xz": "apt's planner input, with paths of the download cache",
    "/var/log/dpkg.log": "dpkg notes when it ran",
    "/var/log/alternatives.log": "update-alternatives notes when it ran",
    "/var/log/bootstrap.log": "the bootstrap's own log",
    "/var/cache/ldconfig/aux-cache": "holds inode numbers and times; ldconfig makes it again",
    "/var/cache/debconf/config.dat-old": "a backup of the previous run",
    "/var/cache/debconf/templates.dat-old": "a backup of the previous run",
    "/var/cache/debconf/passwords.dat": "empty outside an installer, and unreadable",
    "/var/lib/dpkg/available-old": "a backup of the previous run",
    "/var/lib/dpkg/diversions-old": "a backup of the previous run",
    "/var/lib/dpkg/statoverride-old": "a backup of the previous run",
    "/var/lib/dpkg/status-old": "a backup of the previous run",
    "/var/lib/dpkg/lock": "a lock of processes that are gone",
    "/var/lib/dpkg/lock-frontend": "a lock of processes that are gone",
    "/var/lib/dpkg/triggers/Lock": "a lock of processes that are gone",
    "/var/lib/apt/extended_states-old": "a backup of the previous run",
    "/var/lib/systemd/catalog/database": "holds the time it was made",
    "/etc/hosts": "the container's own; every start makes one",
    "/etc/resolv.conf": "the site's; every start makes one",
    "/etc/hostname": "the container's own; every start makes one",
    "/etc/machine-id": "names one machine; every start makes its own",
    "/var/lib/dbus/machine-id": "names one machine; every start makes its own",
}
"""Path in the image, and why it is not part of a layer."""


def drop(upper: Path) -> None:
    """Remove what `RULES` names from ``upper``; links are not followed out of it."""
    touched = set(os.listdir(upper))
    for path in RULES:
        folder, _, name = path.rpartition("/")
        if path.split("/")[1] in touched and _is_plain_folder(upper, folder):
            target = upper / folder.lstrip("/") / name
            if target.is_file() and not target.is_symlink():
                target.unlink()


def _is_plain_folder(upper: Path, folder: str) -> bool:
    here = upper
    for part in folder.strip("/").split("/"):
        here = here / part
        if here.is_symlink() or not here.is_dir():
            return False
    return True
