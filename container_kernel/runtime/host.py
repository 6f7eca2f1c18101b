"""Host: what this machine gives, found out and never assumed."""

from __future__ import annotations

import functools
import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .. import syscalls
from ..errors import HostError
from ..record import field, record
from . import cgroup, level, subordinate
from .bundle import DEFAULT_PATH
from .level import Level
from .namespace import Namespace
from .oci_runtime import OciRuntime
from .subordinate import Range

if TYPE_CHECKING:
    from .lent import Lent
    from .network import Network
    from .uplink import Uplink

_WANTED_RUNTIMES = ("crun", "runc")
_numbers = itertools.count(1)  # of the whole process: several hosts share one run folder
_MOST_BYTES = 128 * 1024**2  # a value that goes from one stage to another has 64 MiB at most
_MOST_FILES = 4096
INSTALL = "sudo apt-get install -y"


@record(frozen=False)
class Host:
    """Everything a container is started with, opened once per process."""

    namespace: Namespace
    runtime: OciRuntime
    _made: dict[Hashable, Path] = field(default_factory=dict)
    uplinks: dict[Network, Uplink] = field(default_factory=dict)
    """Networks that the containers of one notebook use one after the other; see `uplink.shared`."""
    ids: Range | None = None
    """Those that are lent to root, who started us."""
    _lent: dict[Path, Lent | None] = field(default_factory=dict)

    @classmethod
    def open(cls, namespace: Namespace, oci_runtime: str | None = None) -> Host:
        """Find the OCI runtime and the cgroup to work under.

        Raises:
            HostError: there is no crun and no runc.
        """
        namespace.settle()
        parent = cgroup.find_parent(namespace.run_dir.name, is_rootless=namespace.is_rootless)
        runtime = OciRuntime(
            find_runtime(oci_runtime),
            namespace.run_dir,
            is_rootless=namespace.is_rootless,
            cgroup=parent,
            init=find_tool("catatonit"),
        )
        ids = None if namespace.is_rootless else subordinate.of_root()
        return cls(namespace, runtime, ids=ids)

    @functools.cached_property
    def level(self) -> Level:
        """How much isolation this host gives."""
        return level.of(self.namespace, self.runtime.cgroup)

    def lends(self, home: Path) -> Lent | None:
        """Ids for containers of the store in ``home``; None where they have those on disk."""
        if self.ids is None:
            return None
        if home not in self._lent:
            from . import lent  # for the few hosts that do

            self._lent[home] = lent.of(self, self.ids, home)
        return self._lent[home]

    def close_uplinks(self) -> None:
        """End the networks that were kept for another container."""
        for uplink in self.uplinks.values():
            uplink.close()
        self.uplinks.clear()

    def new_folder(self, kind: str) -> Path:
        """An empty folder of this process, for a mount point or a socket."""
        folder = self.namespace.run_dir / kind / str(next(_numbers))
        folder.mkdir(mode=0o755, parents=True)
        self.open_to_containers(folder.parent, folder)
        return folder

    def open_to_containers(self, *paths: Path) -> None:
        """Let containers read what they are given: where ids are lent, they are not its owner."""
        if self.ids:
            for path in paths:
                path.chmod(0o755 if path.is_dir() else 0o644)

    def keep_in_memory(self, folder: Path, owner: int) -> None:
        """Have a folder of ours empty, and not large; `unbind` takes it away.

        It is for those that a container can write to: were it to fill the memory that all of them
        share, nothing more could be started. ``owner`` is an id on disk.
        """
        if os.path.ismount(folder):
            syscalls.umount(str(folder), syscalls.MNT_DETACH)
        data = f"size={_MOST_BYTES},nr_inodes={_MOST_FILES},mode=700,uid={owner},gid={owner}"
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("tmpfs", str(folder), "tmpfs", flags, data)

    def once(self, key: Hashable, make: Callable[[], Path]) -> Path:
        """What ``make`` made the first time it was asked for ``key`` in this process."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def bind(self, source: Path, *, readonly: bool = True, shift: int | None = None) -> Path:
        """Bind ``source`` (nosuid, nodev) where a container's runtime can reach it.

        The runtime resolves sources with a container's rights; ours may be needed to get there.
        ``shift`` is a user namespace: owners are shown as it maps them, and what they write
        becomes whose it was; OSError where the file system cannot do that.
        """
        folder = self.new_folder("binds")
        target = folder
        if not source.is_dir():
            target = folder / "file"
            target.touch()
        if shift is None:
            syscalls.mount(str(source), str(target), "", syscalls.MS_BIND | syscalls.MS_REC)
        else:
            syscalls.bind_idmapped(str(source), str(target), shift)
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV
        if readonly:
            flags |= syscalls.MS_RDONLY
        syscalls.mount("none", str(target), "", flags)
        return target

    def unbind(self, target: Path) -> None:
        """Undo `bind`, or `keep_in_memory`."""
        with suppress(OSError):
            syscalls.umount(str(target), syscalls.MNT_DETACH)
        with suppress(OSError):
            if target.name == "file":
                target.unlink()
                target = target.parent
            target.rmdir()


def find_tool(name: str) -> Path | None:
    """The absolute path of a program of the host, from system folders only, never from PATH."""
    for folder in DEFAULT_PATH.split(":"):
        path = Path(folder, name)
        if os.access(path, os.X_OK):
            return path
    return None


def find_runtime(wanted: str | None = None) -> Path:
    """The OCI runtime to use: the one asked for (a name or an absolute path), else crun or runc.

    Raises:
        HostError: it is not there.
    """
    if wanted and "/" in wanted:
        path = Path(wanted)
        if path.is_absolute() and os.access(path, os.X_OK):
            return path
        raise HostError(f"{wanted} is not the absolute path of a program")
    for name in (wanted,) if wanted else _WANTED_RUNTIMES:
        found = find_tool(name)
        if found:
            return found
    names = wanted or " and no ".join(_WANTED_RUNTIMES)
    raise HostError(f"no {names} on this host", hint=f"install one: {INSTALL} crun")


def runtime_version(path: Path) -> tuple[int, ...]:
    """The version an OCI runtime reports, ``(1, 8, 1)``; empty when it says nothing."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version v?(\d+(?:\.\d+)*)", said)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def swapping_userns(owner: os.stat_result, uid: int) -> int:
    """A user namespace in which ``uid`` and the owner of a file have changed places."""
    return userns_of(_swap(owner.st_uid, uid), _swap(owner.st_gid, uid))


@functools.cache
def userns_of(uids: str, gids: str) -> int:
    """A descriptor of a user namespace with these maps; kept open for the life of the process."""
    process = subprocess.Popen(
        [find_tool("unshare") or "unshare", "--user", "cat"], stdin=subprocess.PIPE
    )
    try:
        proc = Path(f"/proc/{process.pid}")
        _wait_for_new_userns(proc)
        (proc / "uid_map").write_text(uids)
        (proc / "gid_map").write_text(gids)
        return os.open(proc / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        process.kill()
        process.communicate()


def _wait_for_new_userns(proc: Path) -> None:
    ours = os.readlink("/proc/self/ns/user")
    deadline = time.monotonic() + 5
    while os.readlink(proc / "ns/user") == ours:
        if time.monotonic() > deadline:
            raise OSError(0, "no user namespace for an id-mapped mount")
        time.sleep(0.0005)


def _swap(one: int, other: int) -> str:
    """An id map that exchanges two ids and keeps all others."""
    if one == other:
        return "0 0 4294967295"
    low, high = sorted((one, other))
    rows = [(low, high, 1), (high, low, 1), (high + 1, high + 1, 4294967295 - high - 1)]
    if low:
        rows.append((0, 0, low))
    if high - low > 1:
        rows.append((low + 1, low + 1, high - low - 1))
    return "\n".join(" ".join(map(str, row)) for row in sorted(rows))
