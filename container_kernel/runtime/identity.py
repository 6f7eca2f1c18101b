"""Identity: who a process in a container is, resolved inside its root file system.

Names are looked up in the image's own files, opened so that no link of the image leads out
(openat2(2)), and read up to a bound: an image may hold anything there.
"""

from __future__ import annotations

import os

from .. import syscalls
from ..errors import CellError, out_of_files
from ..record import record

_MOST_BYTES = 4 * 1024**2
_LARGEST_ID = 2**31 - 1
_FORBIDDEN = ("proc", "sys", "dev")


@record
class User:
    """Numeric ids of the image, with a name and home for the environment."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = "/"


def read_file(root_fd: int, path: str) -> str | None:
    """The text of a regular file in the image, or None where there is none.

    Raises:
        HostError: this process can open no more files.
    """
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        fd = syscalls.regular(syscalls.open_in_root(root_fd, path, flags))
    except OSError as error:
        if host_error := out_of_files(error):
            raise host_error from error
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(_MOST_BYTES).decode(errors="replace")


def resolve_user(passwd: str, group_file: str, text: str) -> User:
    """Who ``text`` is (``name``, ``uid``, ``name:group``, ``uid:gid``; empty is root) by the
    image's passwd(5) and group(5) files.

    Raises:
        CellError: no such name in the image, or a number no user can have.
    """
    who, _, group = text.partition(":")
    users = _table(passwd, 7)
    row = next((row for row in users if row[0] == who or row[2] == who), None)
    if not who:
        row = next((row for row in users if row[2] == "0"), None)
    uid = _number(row[2] if row else who or "0", "user", who)
    gid = _number(row[3], "group", who) if row else 0
    groups = _table(group_file, 4)
    if group:
        match = next((line for line in groups if group in (line[0], line[2])), None)
        gid = _number(match[2] if match else group, "group", group)
    name = row[0] if row else ""
    extra = tuple(
        int(line[2])
        for line in groups
        if name and name in line[3].split(",") and line[2].isdigit() and int(line[2]) != gid
    )
    return User(uid, gid, () if group else extra, name, (row[5] or "/") if row else "/")


def check_directory(root_fd: int, path: str) -> str:
    """``path`` with every link followed inside the image; a folder that a process may start in.

    Raises:
        CellError: not there, not a folder, or in /proc, /sys or /dev, through whose links a
            runtime can be led out of the container (CVE-2024-21626).
    """
    try:
        fd = syscalls.open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise CellError(f"the working directory {path!r} is not in the image") from error
    try:
        root = os.readlink(f"/proc/self/fd/{root_fd}")
        inside = os.readlink(f"/proc/self/fd/{fd}").removeprefix(root) or "/"
    finally:
        os.close(fd)
    if inside.lstrip("/").partition("/")[0] in _FORBIDDEN:
        raise CellError(f"the working directory {path!r} is a place of the host kernel")
    return inside


def _table(text: str, columns: int) -> list[list[str]]:
    rows = (line.split(":") for line in text.splitlines())
    return [row for row in rows if len(row) >= columns]


def _number(text: str, kind: str, given: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise CellError(f"the image has no {kind} called {given!r}")
    number = int(text)
    if number > _LARGEST_ID:
        raise CellError(f"{given!r} is no {kind}: ids go up to {_LARGEST_ID}")
    return number
