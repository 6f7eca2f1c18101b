"""Bundle: the folder an OCI runtime is given, with its ``config.json`` (runtime-spec 1.0.2).

Nothing in here comes from an image or a notebook unchecked: no hooks, no sysctls, no annotations,
never a terminal, numeric users only, a working directory resolved beforehand.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..oci.idmap import IdMap
from ..record import field, record
from . import profile

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@record(kw_only=True)
class Limits:
    """What a container may use. ``None`` means the host's own limit."""

    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None
    shm_bytes: int = 64 * 1024**2
    open_files: int = 1024 * 1024


@record
class Mount:
    """Something attached inside the container at ``target``; binds are nosuid and nodev."""

    source: str
    target: str
    kind: str = "bind"
    options: tuple[str, ...] = ()

    @classmethod
    def bind(cls, source: Path | str, target: str, *, readonly: bool = False) -> Mount:
        """Show ``source`` of the host at ``target``."""
        access = "ro" if readonly else "rw"
        return cls(str(source), target, "bind", ("rbind", "nosuid", "nodev", "rprivate", access))


@record(kw_only=True)
class Process:
    """A command with everything it needs; ids are the image's."""

    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()

    def to_spec(self, limits: Limits, *, nproc: int | None) -> dict[str, Any]:
        """The ``process`` object of a runtime spec; ``nproc`` is its RLIMIT_NPROC, if any."""
        held = list(self.capabilities)
        return {
            "terminal": False,
            "user": {
                "uid": self.uid,
                "gid": self.gid,
                "umask": 0o022,
                "additionalGids": list(self.groups),
            },
            "args": list(self.args),
            "env": [f"{key}={value}" for key, value in self.env.items()],
            "cwd": self.cwd,
            "capabilities": {
                "bounding": held,
                "effective": held,
                "permitted": held,
                "inheritable": [],
                "ambient": [],
            },
            "rlimits": _rlimits(limits, nproc),
            "noNewPrivileges": True,
        }


@record(kw_only=True)
class ContainerSpec:
    """All that is said to the OCI runtime about one container."""

    rootfs: Path
    process: Process
    idmap: IdMap
    limits: Limits = Limits()
    mounts: tuple[Mount, ...] = ()
    hostname: str = "container"
    host_network: bool = False
    pretend_ownership: bool = False

    def to_json(self, *, cgroups_path: str | None, nproc: int | None) -> dict[str, Any]:
        """The runtime spec. Limits that need a cgroup are in it only with ``cgroups_path``."""
        return {
            "ociVersion": "1.0.2",
            "process": self.process.to_spec(self.limits, nproc=nproc),
            "root": {"path": str(self.rootfs), "readonly": False},
            "hostname": self.hostname,
            "mounts": [_mount(mount) for mount in (*self._system_mounts(), *self.mounts)],
            "linux": self._linux(cgroups_path),
        }

    def _system_mounts(self) -> tuple[Mount, ...]:
        shm = f"size={self.limits.shm_bytes}"
        guarded = ("nosuid", "noexec", "nodev")
        sys_ = (
            # sysfs shows the network namespace it was mounted in; the host's is not shown.
            Mount("tmpfs", "/sys", "tmpfs", (*guarded, "ro", "size=0", "mode=555"))
            if self.host_network
            else Mount("sysfs", "/sys", "sysfs", (*guarded, "ro"))
        )
        return (
            Mount("proc", "/proc", "proc", guarded),
            Mount(
                "tmpfs",
                "/dev",
                "tmpfs",
                ("nosuid", "noexec", "strictatime", "mode=755", "size=64m"),
            ),
            Mount(
                "devpts",
                "/dev/pts",
                "devpts",
                ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
            ),
            Mount("shm", "/dev/shm", "tmpfs", (*guarded, "mode=1777", shm)),
            Mount("mqueue", "/dev/mqueue", "mqueue", guarded),
            sys_,
        )

    def _linux(self, cgroups_path: str | None) -> dict[str, Any]:
        kinds = ["pid", "mount", "ipc", "uts", "cgroup"]
        if not self.host_network:
            kinds.append("network")
        linux: dict[str, Any] = {
            "seccomp": profile.seccomp(pretend_ownership=self.pretend_ownership),
            "maskedPaths": list(profile.MASKED_PATHS),
            "readonlyPaths": list(profile.READONLY_PATHS),
            "rootfsPropagation": "private",
        }
        if not self.idmap.is_identity:
            kinds.append("user")
            extents = [
                {"containerID": image, "hostID": disk, "size": count}
                for image, disk, count in self.idmap.extents
            ]
            linux["uidMappings"] = linux["gidMappings"] = extents
        linux["namespaces"] = [{"type": kind} for kind in kinds]
        if cgroups_path:
            linux["cgroupsPath"] = cgroups_path
            linux["resources"] = _resources(self.limits)
        return linux


def write(
    folder: Path, spec: ContainerSpec, *, cgroups_path: str | None, nproc: int | None
) -> None:
    """Make ``folder`` a bundle."""
    folder.mkdir(mode=0o700, parents=True)
    config = spec.to_json(cgroups_path=cgroups_path, nproc=nproc)
    (folder / "config.json").write_text(json.dumps(config))


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "destination": mount.target,
        "type": mount.kind,
        "source": mount.source,
        "options": list(mount.options),
    }


def _resources(limits: Limits) -> dict[str, Any]:
    resources: dict[str, Any] = {"devices": _DEVICES}
    if limits.memory_bytes is not None:
        # Swap is counted together with memory: the same number means no swap.
        resources["memory"] = {"limit": limits.memory_bytes, "swap": limits.memory_bytes}
    if limits.pids is not None:
        resources["pids"] = {"limit": limits.pids}
    if limits.cpus is not None:
        resources["cpu"] = {"quota": int(limits.cpus * 100_000), "period": 100_000}
    return resources


def _device(kind: str, major: int | None, minor: int | None, access: str = "rwm") -> dict[str, Any]:
    device: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major is not None:
        device["major"] = major
    if minor is not None:
        device["minor"] = minor
    return device


_DEVICES: Sequence[dict[str, Any]] = (
    {"allow": False, "access": "rwm"},
    _device("c", 1, 3),  # null
    _device("c", 1, 5),  # zero
    _device("c", 1, 7),  # full
    _device("c", 1, 8),  # random
    _device("c", 1, 9),  # urandom
    _device("c", 5, 0),  # tty
    _device("c", 5, 2),  # ptmx
    _device("c", 136, None),  # pts
)


def _rlimits(limits: Limits, nproc: int | None) -> list[dict[str, Any]]:
    """Within this process's hard limits: raising one takes a capability we may lack."""
    files = clamped(resource.RLIMIT_NOFILE, limits.open_files)
    found = [("RLIMIT_NOFILE", min(1024, files), files), ("RLIMIT_CORE", 0, 0)]
    if nproc is not None:
        most = clamped(resource.RLIMIT_NPROC, nproc)
        found.append(("RLIMIT_NPROC", most, most))
    return [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in found]


def clamped(number: int, value: int) -> int:
    """``value``, or this process's hard limit of resource ``number`` where that is less."""
    hard = resource.getrlimit(number)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
