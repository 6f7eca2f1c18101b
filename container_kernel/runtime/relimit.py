"""Relimit: other limits for a container that runs."""

from __future__ import annotations

import math
import os
import resource
from contextlib import suppress

from .. import syscalls
from ..errors import HostError
from . import processes
from .cgroup import CgroupParent
from .container import Container
from .limits import Limits, clamped
from .overlay import with_own_directory

_SHM = syscalls.MS_REMOUNT | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def can(old: Limits, new: Limits, *, has_cgroup: bool) -> bool:
    """Whether one can become the other while a container runs.

    Not where what is written must go elsewhere, not to a throttle of a disk, and not to a higher
    rlimit: that takes a right that a user has not.
    """
    if (old.io_bps, old.io_weight) != (new.io_bps, new.io_weight):
        return False
    if (old.scratch_bytes is None) != (new.scratch_bytes is None):
        return False
    by_rlimit = ("open_files",) if has_cgroup else ("open_files", "memory_bytes", "pids")
    return all(_most(new, name) <= _most(old, name) for name in by_rlimit)


def _most(limits: Limits, name: str) -> float:
    value = getattr(limits, name)
    return math.inf if value is None else value


def apply(container: Container, limits: Limits) -> None:
    """Hold ``container`` to ``limits``.

    Raises:
        PermissionError: its rlimits are not ours to set; nothing was.
        HostError: the host kernel refused, as when more is used already.
    """
    _set_rlimits(container, limits)
    try:
        if container.cgroup is not None:
            _write_all(container.cgroup, container.name, limits, has_init=container.has_init)
        held = container.cgroup is not None and container.cgroup.has("cpuset")
        if limits.cpuset != container.limits.cpuset and not held:
            processes.bind(container.pid, limits.cpuset or os.sched_getaffinity(0))
        if limits.shm_bytes != container.limits.shm_bytes:
            _remount_shm(container.pid, limits.shm_bytes)
    except OSError as error:
        raise HostError(
            f"the host kernel refused the new limit: {error.strerror}",
            hint="it may use more than that already; end what uses it, or restart the kernel",
        ) from error
    container.limits = container.pressure.limits = limits


def _write_all(cgroup: CgroupParent, name: str, limits: Limits, *, has_init: bool) -> None:
    def write(controller: str, v1: str, v2: str, value: object) -> None:
        cgroup.file(name, controller, v1, v2).write_text(str(value))

    is_v2 = cgroup.version == 2
    no_limit = "max" if is_v2 else "-1"
    if limits.memory_bytes is not None:
        swap = limits.swap_bytes if is_v2 else limits.memory_bytes + limits.swap_bytes
        pairs = [
            ("memory.limit_in_bytes", "memory.max", limits.memory_bytes),
            ("memory.memsw.limit_in_bytes", "memory.swap.max", swap),
        ]
        # On v1 the sum may never be the smaller one, not even for a moment.
        old = cgroup.file(name, "memory", pairs[0][0], pairs[0][1]).read_text().strip()
        grows = old.isdigit() and limits.memory_bytes > int(old)
        for v1, v2, value in reversed(pairs) if grows else pairs:
            with suppress(FileNotFoundError):  # a host without swap accounting
                write("memory", v1, v2, value)
    if limits.pids is not None:
        write("pids", "pids.max", "pids.max", limits.pids + has_init)
    if cgroup.has("cpu"):
        quota = no_limit if limits.cpus is None else str(max(1000, int(limits.cpus * 100_000)))
        write("cpu", "cpu.cfs_quota_us", "cpu.max", f"{quota} 100000" if is_v2 else quota)
    if cgroup.has("cpuset"):
        wanted = limits.cpuset or sorted(os.sched_getaffinity(0))
        write("cpuset", "cpuset.cpus", "cpuset.cpus", ",".join(map(str, wanted)))


def _set_rlimits(container: Container, limits: Limits) -> None:
    if limits.open_files != container.limits.open_files:
        _lower(container.pid, resource.RLIMIT_NOFILE, limits.open_files)
    if container.cgroup is not None:
        return
    if limits.pids is not None:
        _lower(container.pid, resource.RLIMIT_NPROC, limits.pids + container.has_init)
    if limits.memory_bytes is not None:
        _lower(container.pid, resource.RLIMIT_DATA, limits.memory_bytes)


def _lower(pid: int, number: int, most: int) -> None:
    """Set an rlimit of everything in a container; raising one takes a right that we may lack."""
    most = clamped(number, most)

    def set_one(one: int) -> None:
        soft = resource.prlimit(one, number)[0]
        kept = min(soft, most) if number == resource.RLIMIT_NOFILE else most
        resource.prlimit(one, number, (kept, most))

    processes.each(pid, set_one)


def _remount_shm(pid: int, size: int) -> None:
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def remount() -> None:
        syscalls.setns(namespace, syscalls.CLONE_NEWNS)
        syscalls.mount("shm", "/dev/shm", "tmpfs", _SHM, f"size={size}")

    try:
        with_own_directory(remount)
    finally:
        os.close(namespace)
