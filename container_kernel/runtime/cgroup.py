"""Cgroup: where this host lets us limit and meter a container.

Three cases: root on v1 (also hybrid, whose v2 part ``namespace`` hides), root on v2, and a user
on v2 whose session was delegated a cgroup. Else there is no cgroup, and limits that need one are
reported as not held, never claimed.
"""

from __future__ import annotations

import functools
import os
import threading
from contextlib import closing, suppress
from pathlib import Path

from ..folders import remove_tree
from ..record import record

ROOT = Path("/sys/fs/cgroup")
_COVERED = ROOT / "unified"
"""On v1 an ordinary folder (see `namespace`), in which runtimes leave ordinary files."""
LEAF = "container-kernel"
"""Where the processes of a user's tree are on v2, beside the cgroups of its containers."""
_NEEDED = ("memory", "pids")
_WANTED = ("cpu", "cpuset", "io", *_NEEDED)
_V1_NAMES = {"io": "blkio"}


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
            return [ROOT / inside]
        return [top / inside for top in ROOT.iterdir() if (top / inside).is_dir()]

    def has(self, controller: str) -> bool:
        """Whether ``cpu``, ``cpuset``, ``io``, ``memory`` or ``pids`` is there for containers."""
        return controller in _controllers(self)

    def offers(self, controller: str, file: str) -> bool:
        """Whether cgroups below have this file of a controller."""
        top = self.path.lstrip("/") if self.version == 2 else _V1_NAMES.get(controller, controller)
        return (ROOT / top / file).exists()

    def file(self, name: str, controller: str, v1: str, v2: str) -> Path:
        """A file of that container's cgroup, by its name on v1 and on v2."""
        inside = self.child(name).lstrip("/")
        if self.version == 2:
            return ROOT / inside / v2
        return ROOT / _V1_NAMES.get(controller, controller) / inside / v1

    def freezer(self, name: str) -> Path | None:
        """The folder that stops and resumes that container. None on v1: what is frozen there
        cannot even be killed, and would outlive us.
        """
        return self.folders(name)[0] if self.version == 2 else None

    def thaw(self, name: str) -> None:
        """Have that container go on which somebody else has stopped."""
        value = "0" if self.version == 2 else "THAWED"
        with suppress(OSError):
            self.file(name, "freezer", "freezer.state", "cgroup.freeze").write_text(value)

    def cpu_seconds(self, name: str) -> float | None:
        """The processor time of that container so far; None when it is not counted."""
        with closing(self.counters(name)) as counters:
            return counters.cpu_seconds()

    def counters(self, name: str) -> UsageCounters:
        """The same, and the peak of its memory, for who asks again and again."""
        is_2 = self.version == 2
        file = self.file(name, "cpuacct", "cpuacct.usage", "cpu.stat")
        cpu = Counter(file, b"usage_usec" if is_2 else b"")
        return UsageCounters(cpu, 1e6 if is_2 else 1e9, Counter(self._peak_file(name)))

    def peak_memory_bytes(self, name: str) -> int | None:
        """The most memory that container had at one time; None when it is not counted."""
        return number_in(self._peak_file(name))

    def _peak_file(self, name: str) -> Path:
        return self.file(name, "memory", "memory.max_usage_in_bytes", "memory.peak")

    def warm_up(self) -> None:
        """Spare whoever joins a cgroup in the next moments a wait of 8 to 20 ms.

        It is for an RCU grace period, under the lock that forks take too, and paid by the first of
        several within one (`cgroup_threadgroup_rwsem`). A write that changes nothing, in a thread,
        waits instead, while the OCI runtime is still busy with what comes before.
        """
        threading.Thread(target=self._join_own, name="cgroup", daemon=True).start()

    def _join_own(self) -> None:
        kind, top = ("", ROOT) if self.version == 2 else ("pids", ROOT / "pids")
        with suppress(OSError):
            (top / path_of("self", kind).lstrip("/") / "cgroup.procs").write_text("0")

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


def remove_unasked(pattern: str) -> None:
    """Remove cgroups, by their names, that runc has made where it was told of none: beside our own
    on v2, if it may write there.
    """
    beside = ROOT / own_path().lstrip("/")
    for place in (beside if beside == ROOT else beside.parent, _COVERED):
        for folder in place.glob(pattern):
            with suppress(OSError):
                os.rmdir(folder)


def find_parent(run_name: str, *, is_rootless: bool) -> CgroupParent | None:
    """The parent for the containers of one run of this program, or None."""
    if (ROOT / "cgroup.controllers").exists():
        return _find_v2(run_name, is_rootless=is_rootless)
    if is_rootless or not all((ROOT / name).is_dir() for name in _NEEDED):
        return None
    path = f"/container-kernel/{run_name}"
    return CgroupParent(path, 1) if os.access(ROOT / "memory", os.W_OK) else None


def remedy() -> str:
    """What would give an ordinary user a cgroup here."""
    if path_of("self", "memory"):  # of v1, be v2 there for something else or not
        return "boot Linux with cgroup v2 alone: systemd.unified_cgroup_hierarchy=1"
    if not path_of("self").startswith("/user.slice/"):
        return "let the unit that starts us delegate its cgroup: Delegate=yes in its [Service]"
    return (
        "be logged in by systemd (ssh, a desktop, or sudo loginctl enable-linger $USER), and have "
        "its D-Bus: sudo apt-get install dbus-user-session"
    )


def undelegated(parent: CgroupParent) -> list[str]:
    """The controllers that the user's systemd was not lent."""
    return [name for name in _WANTED if parent.version == 2 and not parent.has(name)]


DELEGATE = (
    "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo install -D /dev/stdin "
    "/etc/systemd/system/user@.service.d/delegate.conf; sudo systemctl daemon-reload; "
    "sudo systemctl restart user@$(id -u)  # which ends what your systemd runs"
)
"""What lends a user's systemd all controllers."""


@functools.cache
def _controllers(parent: CgroupParent) -> frozenset[str]:
    if parent.version == 2:
        file = ROOT / parent.path.lstrip("/") / "cgroup.subtree_control"
        try:
            return frozenset(file.read_text().split())
        except OSError:
            return frozenset(_NEEDED)
    return frozenset(n for n in _WANTED if (ROOT / _V1_NAMES.get(n, n)).is_dir())


def _find_v2(run_name: str, *, is_rootless: bool) -> CgroupParent | None:
    own = own_path() if is_rootless else ""
    if is_rootless and not path_of("self").endswith(f"/{LEAF}"):
        return None  # nobody has made room, see `delegation`
    top = ROOT / own.lstrip("/")
    try:
        controllers = (top / "cgroup.controllers").read_text().split()
        if not set(_NEEDED) <= set(controllers):
            return None
        wanted = " ".join(f"+{name}" for name in _WANTED if name in controllers)
        (top / "cgroup.subtree_control").write_text(wanted)
        parent = top / f"container-kernel-{run_name}"
        parent.mkdir(exist_ok=True)
        (parent / "cgroup.subtree_control").write_text(wanted)
    except OSError:
        return None
    return CgroupParent(f"{own}/{parent.name}", 2)


def own_path() -> str:
    """This process tree's cgroup in the v2 hierarchy, before it made room for containers."""
    return path_of("self").removesuffix(f"/{LEAF}")


def path_of(pid: str, controller: str = "") -> str:
    """A process's cgroup in the v1 hierarchy of ``controller``, or in that of v2 (``""``)."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return ""


class Counter:
    """A number in a file that is read again and again, in each cell: it stays open."""

    def __init__(self, file: Path | None, key: bytes = b"") -> None:
        self._key = key
        self._fd = -1
        with suppress(OSError):
            self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC) if file else -1

    def value(self) -> int:
        """The number after the key, or alone in the file; 0 where there is none."""
        with suppress(OSError, ValueError, IndexError):
            words = os.pread(self._fd, 4096, 0).split()
            return int(words[words.index(self._key) + 1 if self._key else 0])
        return 0

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@record
class UsageCounters:
    """What one container has used, in files that stay open; ``cpu`` has ``per_second`` a second."""

    cpu: Counter
    per_second: float
    peak: Counter

    def cpu_seconds(self) -> float | None:
        """The processor time so far; None when it is not counted."""
        used = self.cpu.value()
        return used / self.per_second if used else None

    def close(self) -> None:
        """Let go of the files."""
        self.cpu.close()
        self.peak.close()


def number_in(file: Path) -> int | None:
    """The number a file holds; None when there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def field_of(file: Path, name: str) -> int:
    """The number after ``name`` in a flat-keyed file; 0 when there is none."""
    try:
        for line in file.read_text().splitlines():
            words = line.split(None, 2)
            if words and words[0] == name:
                return int(words[1])
    except (OSError, ValueError, IndexError):
        pass
    return 0
