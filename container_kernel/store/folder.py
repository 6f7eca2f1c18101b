"""Folder: whose store it is, which version, and whether it can be written; refused untouched.

``store.json`` says the version of the store and how its trees write ids. A newer version is refused
before anything is changed. An older one is brought up step by step; each step can be done again,
and the new version is written last, as one durable step.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path

from ..errors import StoreError
from ..oci.idmap import IdMap
from .disk import disk_errors
from .leases import folder_lock

VERSION = 2
_RECORD = "store.json"
_ELSEWHERE = "set CONTAINER_KERNEL_HOME to a folder of your own"


def open_folder(home: Path, idmap: IdMap) -> bool:
    """Check that ``home`` is a store for us, or make it one; True when it can only be read.

    Raises:
        StoreError: it belongs to somebody else, is of a newer version, was written with other
            ids, or cannot be written where that is needed.
    """
    try:
        _check_owner(home)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_readonly = bool(os.statvfs(home).f_flag & os.ST_RDONLY)
        version = _check_record(home, idmap)
        if is_readonly:
            _check_readable(home, version)
            return True
        home.chmod(0o700)
        if version < VERSION:
            with disk_errors(home), folder_lock(home, fcntl.LOCK_EX):
                _bring_up(home, idmap, _check_record(home, idmap))
    except OSError as error:
        raise StoreError(
            f"the store {home} cannot be written: {error.strerror}",
            hint="set CONTAINER_KERNEL_HOME to a folder you can write",
        ) from error
    return False


def _check_owner(home: Path) -> None:
    try:
        owner = home.stat().st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid():
        raise StoreError(f"the store {home} belongs to {_named(owner)}", hint=_ELSEWHERE)


def _named(uid: int) -> str:
    if uid == 65534:  # in a user namespace: whoever has no id in it
        return "another user of this host"
    try:
        return f"another user, {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"another user, uid {uid}"


def _check_record(home: Path, idmap: IdMap) -> int:
    """The version ``home`` is of; 0 when it is no store yet."""
    try:
        found = json.loads((home / _RECORD).read_text())
        version, ids = int(found["version"]), found["ids"]
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{home / _RECORD} cannot be read: {error}",
            hint=f"if it is damaged, write {json.dumps(_record(idmap))} into it",
        ) from error
    if version > VERSION:
        raise StoreError(
            f"the store {home} is of version {version}, this program knows {VERSION}",
            hint="upgrade container-kernel, or set CONTAINER_KERNEL_HOME to another folder",
        )
    ours = _record(idmap)["ids"]
    if ids != ours:
        raise StoreError(
            f"the files of the store {home} belong to other ids ({ids}) than this session has "
            f"({ours})",
            hint="set CONTAINER_KERNEL_HOME to another folder, or give back the id range",
        )
    return version


def _check_readable(home: Path, version: int) -> None:
    if version < VERSION:
        raise StoreError(
            f"the store {home} cannot be written, and is of version {version}, not {VERSION}"
            if version
            else f"{home} is no store, and cannot be written to become one",
            hint="open it once where it can be written" if version else _ELSEWHERE,
        )


def _bring_up(home: Path, idmap: IdMap, version: int) -> None:
    for number in range(version, VERSION):
        _STEPS[number](home)
    for left in home.glob(f".{_RECORD}.*"):  # by one that was killed: we are alone here
        left.unlink()
    fresh = home / f".{_RECORD}.{os.urandom(4).hex()}"
    with fresh.open("x") as file:
        json.dump(_record(idmap), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(home / _RECORD)
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _add_leases(home: Path) -> None:
    """Version 2 collects; a program that knows no leases must not open the store any more."""
    for name in ("leases", "leases/readers", "trash", "quarantine", "active", "snapshots"):
        (home / name).mkdir(mode=0o700, exist_ok=True)


_STEPS: dict[int, Callable[[Path], None]] = {0: lambda home: None, 1: _add_leases}


def _record(idmap: IdMap) -> dict[str, object]:
    return {"version": VERSION, "ids": _describe_ids(idmap)}


def _describe_ids(idmap: IdMap) -> str:
    if idmap.is_identity:
        return "as in the image"
    return "one id" if idmap.squash else "subordinate ids"
