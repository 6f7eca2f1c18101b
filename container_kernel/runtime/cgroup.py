"""Cgroup: where this host lets us limit and meter a container.

Three cases: root on v1 (also hybrid, whose v2 part ``namespace`` hides), root on v2, and a user
on v2 whose session was delegated a cgroup. Else there is no cgroup, and limits that need one are
reported as not held, never claimed.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from ..folders import remove_tree
from ..record import record

_ROOT = Path("/sys/fs/cgroup")
_COVERED = _ROOT / "unified"
"""On v1 an ordinary folder (see `namespace`), in which runtimes leave ordinary files."""
_LEAF = "container-kernel"
_NEEDED = ("memory", "pids")


@record
class CgroupParent:
    """A cgroup under which containers get cgroups of their own. ``version`` is 1 or 2."""

    path: str
    version: int

    def child(self, name: str) -> str:
        """The ``cgroupsPath`` of the container called ``name``."""
        return f"{self.path}/{name}"

    def folders(self, name: str) -> list[Path]:
        """The folders of that container's cgroup, one per v1 hierarchy or one on v2."""
        inside = self.child(name).lstrip("/")
        if self.version == 2:
            return [_ROOT / inside]
        return [top / inside for top in _ROOT.iterdir() if (top / inside).is_dir()]

    def freezer(self, name: str) -> Path | None:
        """The folder that stops and resumes that container. None on v1: what is frozen there
        cannot even be killed, and would outlive us.
        """
        return self.folders(name)[0] if self.version == 2 else None

    def out_of_memory_kills(self, name: str) -> int:
        """How many processes of that container the host kernel killed for memory."""
        inside = self.child(name).lstrip("/")
        file = "memory/" + inside + "/memory.oom_control"
        if self.version == 2:
            file = inside + "/memory.events"
        return _field(_ROOT / file, "oom_kill")

    def cpu_seconds(self, name: str) -> float | None:
        """The processor time of that container so far; None when it is not counted."""
        inside = self.child(name).lstrip("/")
        if self.version == 2:
            microseconds = _field(_ROOT / inside / "cpu.stat", "usage_usec")
            return microseconds / 1e6 if microseconds else None
        nanoseconds = _number(_ROOT / "cpuacct" / inside / "cpuacct.usage")
        return nanoseconds / 1e9 if nanoseconds else None

    def peak_memory_bytes(self, name: str) -> int | None:
        """The most memory that container had at one time; None when it is not counted."""
        inside = self.child(name).lstrip("/")
        file = inside + "/memory.peak"
        if self.version == 1:
            file = "memory/" + inside + "/memory.max_usage_in_bytes"
        return _number(_ROOT / file)

    def warm_up(self) -> None:
        """Spare whoever joins a cgroup in the next moments a wait of 8 to 20 ms.

        It is for an RCU grace period, under the lock that forks take too, and paid by the first of
        several within one (`cgroup_threadgroup_rwsem`). A write that changes nothing, in a thread,
        waits instead, while the OCI runtime is still busy with what comes before.
        """
        threading.Thread(target=self._join_own, name="cgroup", daemon=True).start()

    def _join_own(self) -> None:
        kind, top = ("", _ROOT) if self.version == 2 else ("pids", _ROOT / "pids")
        with suppress(OSError):
            (top / _own(kind).lstrip("/") / "cgroup.procs").write_text("0")

    def remove(self, name: str) -> None:
        """Remove that container's cgroup; its processes are gone."""
        for folder in self.folders(name):
            if folder.is_relative_to(_COVERED):
                remove_tree(folder)
            for inner, _, _ in os.walk(folder, topdown=False):
                try:
                    os.rmdir(inner)
                except OSError:
                    pass


def find_parent(run_name: str, *, is_rootless: bool) -> CgroupParent | None:
    """The parent for the containers of one run of this program, or None."""
    if (_ROOT / "cgroup.controllers").exists():
        return _find_v2(run_name, is_rootless=is_rootless)
    if is_rootless or not all((_ROOT / name).is_dir() for name in _NEEDED):
        return None
    path = f"/container-kernel/{run_name}"
    return CgroupParent(path, 1) if os.access(_ROOT / "memory", os.W_OK) else None


def _find_v2(run_name: str, *, is_rootless: bool) -> CgroupParent | None:
    own = own_path() if is_rootless else ""
    top = _ROOT / own.lstrip("/")
    if not os.access(top, os.W_OK):
        return None
    try:
        controllers = (top / "cgroup.controllers").read_text().split()
        if not set(_NEEDED) <= set(controllers):
            return None
        if is_rootless:
            _make_room(top)
        wanted = " ".join(f"+{name}" for name in ("cpu", *_NEEDED) if name in controllers)
        (top / "cgroup.subtree_control").write_text(wanted)
        parent = top / f"container-kernel-{run_name}"
        parent.mkdir(exist_ok=True)
        (parent / "cgroup.subtree_control").write_text(wanted)
    except OSError:
        return None
    return CgroupParent(f"{own}/{parent.name}", 2)


def _make_room(top: Path) -> None:
    """Move this process tree into a leaf: a v2 cgroup with children may hold no processes."""
    leaf = top / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (top / "cgroup.procs").read_text().split():
        (leaf / "cgroup.procs").write_text(pid)


def own_path() -> str:
    """This process tree's cgroup in the v2 hierarchy, before it made room for containers."""
    return _own("").removesuffix(f"/{_LEAF}")


def _own(controller: str) -> str:
    """This process's cgroup in the v1 hierarchy of ``controller``, or in that of v2 (``""``)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return ""


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _field(file: Path, name: str) -> int:
    try:
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
