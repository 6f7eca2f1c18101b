"""Run a command on this host made poorer: ``python -m tests.hosts LACK… -- COMMAND…``.

In a user namespace where the caller is the ordinary user 1000, and a mount namespace in which files
of the host are covered, so that nothing of the host itself changes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from container_kernel import syscalls

USER = 1000
PLENTY = f"{USER}:100000:65536\n"


def cover(path: str, text: str) -> None:
    """Have ``path`` hold ``text``, for whoever is in this mount namespace."""
    put_over(path, text.encode(), 0o644)


def subordinate_ids(text: str) -> None:
    for path in ("/etc/subuid", "/etc/subgid"):
        cover(path, text)


LACKS = {
    "ids": lambda: subordinate_ids(""),
    "enough-ids": lambda: subordinate_ids(f"{USER}:100000:100\n"),
    # newuidmap is there, and root of another user namespace cannot lend it its rights.
    "right-to-map": lambda: subordinate_ids(PLENTY),
    "newuidmap": lambda: (subordinate_ids(PLENTY), cover("/usr/bin/newuidmap", "")),
    "setuid": lambda: (subordinate_ids(PLENTY), plain("/usr/bin/newuidmap")),
    "user-namespaces": lambda: Path("/proc/sys/user/max_user_namespaces").write_text("0"),
    "net-namespaces": lambda: Path("/proc/sys/user/max_net_namespaces").write_text("0"),
}


def plain(path: str) -> None:
    """A program without its privileges."""
    put_over(path, Path(path).read_bytes(), 0o755)


def put_over(path: str, data: bytes, mode: int) -> None:
    """Mount a file over ``path``; the mount keeps the file, which needs no name any more."""
    with tempfile.TemporaryDirectory(prefix="ck-poor-") as folder:
        file = Path(folder, "file")
        file.write_bytes(data)
        file.chmod(mode)
        syscalls.mount(str(file), path, flags=syscalls.MS_BIND)


def become_poor(lacks: list[str]) -> None:
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{USER} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{USER} {gid} 1")
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    for lack in lacks:
        LACKS[lack]()


if __name__ == "__main__":
    end = sys.argv.index("--")
    become_poor(sys.argv[1:end])
    command = sys.argv[end + 1 :]
    os.execvp(command[0], command)
