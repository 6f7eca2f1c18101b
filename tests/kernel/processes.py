"""Processes of the host, by what /proc says of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NAMESPACES = ("mnt", "net", "pid", "user", "ipc", "uts")


def all_processes():
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def descendants(pid):
    """A process and everything it started, oldest first."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):  # it has ended
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def state(pid):
    """The letter of proc_pid_stat(5); X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def name(pid):
    """The program's name; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def is_running(pid):
    return state(pid) not in "ZX"


def bury(pids):
    """Take the exit status of those that became our children when their parent was killed."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def command(pid):
    """The first word of its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
    except OSError:
        return ""


def descriptors(pid):
    """What it holds open."""
    try:
        return [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []


def namespaces(pid, kinds=NAMESPACES):
    """The names of those it is in."""
    found = set()
    for kind in kinds:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def inode(path):
    try:
        return path.stat().st_ino
    except OSError:
        return None


def own_cgroups(pid):
    """Where this package put a process, with the number of each place."""
    found = set()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        place = Path("/sys/fs/cgroup", names, path.lstrip("/"))
        if "container-kernel" in path and (number := inode(place)):
            found.add((place, number))
    return found
