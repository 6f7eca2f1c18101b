"""Holder: by which hand each limit is set: the OCI runtime's, or ours from outside, once it runs.

The runtime is the first to be held to an rlimit that it sets: crun could not fork where the user
has many processes, and runc is no program that runs in little memory. So crun sets one with room
for all that runs on this host: it stops a program that is quicker than we are.
"""

from __future__ import annotations

import resource
from typing import Any

from ..record import record, replace
from . import processes
from .cgroup import CgroupParent
from .limits import Held, Limits, hold, rlimits

_ROOM_FOR_RUNC = 256 * 1024**2
"""It needs some 90 MB, and more with more processors."""
_ROOM_FOR_CRUN = 1000
"""So many more processes may there be when it forks than were counted just before."""


@record
class Holder:
    """For one OCI runtime, with or without a cgroup to work under."""

    cgroup: CgroupParent | None
    is_crun: bool
    is_rootless: bool

    def on_start(self, limits: Limits, name: str, *, has_init: bool) -> Held:
        """What the runtime is told of the limits of the container ``name``."""
        told = self._told(limits, has_init)
        return hold(told, self.cgroup, name, data=self._sets_data(limits))

    def on_exec(self, limits: Limits, *, has_init: bool) -> list[dict[str, Any]]:
        """The rlimits of another process in a container."""
        alone = self.cgroup is None
        data = alone and self._sets_data(limits)
        return rlimits(self._told(limits, has_init), nproc=alone, data=data)

    def from_outside(self, pid: int, limits: Limits, *, has_init: bool) -> bool:
        """Set what the runtime has not, for all that runs in the container of ``pid``.

        False if it has taken more memory than that already.
        """
        alone = self.cgroup is None
        counted = _counted(limits, has_init)
        if alone and self.is_crun and counted.pids is not None:
            processes.limit(pid, resource.RLIMIT_NPROC, counted.pids)
        if alone and not self._sets_data(limits) and limits.memory_bytes is not None:
            processes.limit(pid, resource.RLIMIT_DATA, limits.memory_bytes)
            if processes.has_more_data(pid, limits.memory_bytes):
                return False
        if limits.cpuset and not (self.cgroup and self.cgroup.has("cpuset")):
            processes.bind(pid, limits.cpuset)
        return True

    def _told(self, limits: Limits, has_init: bool) -> Limits:
        counted = _counted(limits, has_init)
        if self.cgroup is not None or not self.is_crun or counted.pids is None:
            return counted
        return replace(counted, pids=max(counted.pids, processes.on_host() + _ROOM_FOR_CRUN))

    def _sets_data(self, limits: Limits) -> bool:
        """Whether the runtime sets RLIMIT_DATA. Root may lack the right to do it from outside."""
        has_room = (limits.memory_bytes or 0) >= _ROOM_FOR_RUNC
        return self.is_crun or not self.is_rootless or has_room


def _counted(limits: Limits, has_init: bool) -> Limits:
    """The init process is not one of those that are limited."""
    return replace(limits, pids=limits.pids + 1) if has_init and limits.pids else limits
