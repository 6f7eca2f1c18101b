"""Bundle: the folder an OCI runtime is given, with its ``config.json`` (runtime-spec 1.0.2).

Nothing in here comes from an image or a notebook unchecked: no hooks, no sysctls, no annotations
of theirs, never a terminal, numeric users only, a working directory resolved beforehand.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..oci.idmap import IdMap
from ..record import field, record, replace
from . import profile
from .limits import Held, Limits

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_PATH = "/run/container-kernel-init"
"""Where the init process is mounted in a container, when the host has one to offer."""


@record
class Mount:
    """Something attached inside the container at ``target``; binds are nosuid and nodev."""

    source: str
    target: str
    kind: str = "bind"
    options: tuple[str, ...] = ()

    @classmethod
    def device(cls, path: str) -> Mount:
        """Show a device of the host at the same place, as it may be used there."""
        return cls(path, path, "bind", ("bind", "nosuid", "noexec", "rprivate", "rw", "dev"))

    @classmethod
    def bind(cls, source: Path | str, target: str, *, readonly: bool = False) -> Mount:
        """Show ``source`` of the host at ``target``."""
        access = "ro" if readonly else "rw"
        return cls(str(source), target, "bind", ("rbind", "nosuid", "nodev", "rprivate", access))

    @classmethod
    def bind_as_is(cls, source: Path, target: str, *, readonly: bool) -> Mount:
        """The same for a source of any sort: what its mount forbids must be said again, or runc
        tries to allow it, and may not.
        """
        plain = cls.bind(source, target, readonly=readonly)
        if not os.statvfs(source).f_flag & os.ST_NOEXEC:
            return plain
        return replace(plain, options=(*plain.options, "noexec"))


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
    ambient: tuple[str, ...] = ()
    """Those of them that a user who is not root keeps when a program is executed."""
    apparmor: str | None = None
    """The profile of that name, which the host has loaded."""
    selinux: str | None = None
    """The context it gets, of SELinux."""

    def to_spec(self, rlimits: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The ``process`` object of a runtime spec."""
        held = list(self.capabilities)
        return {
            **({"apparmorProfile": self.apparmor} if self.apparmor else {}),
            **({"selinuxLabel": self.selinux} if self.selinux else {}),
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
                "inheritable": list(self.ambient),
                "ambient": list(self.ambient),
            },
            "rlimits": list(rlimits),
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
    netns: Path | None = None
    """A network namespace to join; None is one of its own, unless the host's is shared."""
    devices: tuple[str, ...] = ()
    """Devices of the host that may be used; they are mounted besides."""
    pretend_ownership: bool = False
    has_seccomp: bool = True
    mount_label: str | None = None
    """The context of the file systems that the runtime mounts, of SELinux."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What only one kind of OCI runtime understands."""

    def to_json(self, held: Held) -> dict[str, Any]:
        """The runtime spec, with the limits as they are held."""
        return {
            "ociVersion": "1.0.2",
            "process": self.process.to_spec(held.rlimits),
            "root": {"path": str(self.rootfs), "readonly": False},
            "hostname": self.hostname,
            "mounts": [_mount(mount) for mount in (*self._system_mounts(), *self.mounts)],
            "linux": self._linux(held),
            **({"annotations": {**self.annotations}} if self.annotations else {}),
        }

    def _system_mounts(self) -> tuple[Mount, ...]:
        shm = f"size={self.limits.shm_bytes}"
        guarded = ("nosuid", "noexec", "nodev")
        sys_ = (
            # sysfs shows a network namespace, and can be mounted by its owner only.
            Mount("tmpfs", "/sys", "tmpfs", (*guarded, "ro", "size=0", "mode=555"))
            if self.host_network or self.netns
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

    def _linux(self, held: Held) -> dict[str, Any]:
        kinds = ["pid", "mount", "ipc", "uts", "cgroup"]
        linux: dict[str, Any] = {
            "maskedPaths": list(profile.masked_paths()),
            "readonlyPaths": list(profile.READONLY_PATHS),
            "rootfsPropagation": "private",
        }
        if self.mount_label:
            linux["mountLabel"] = self.mount_label
        if self.has_seccomp:
            linux["seccomp"] = profile.seccomp(pretend_ownership=self.pretend_ownership)
        if not self.idmap.is_identity:
            kinds.append("user")
            extents = [
                {"containerID": image, "hostID": disk, "size": count}
                for image, disk, count in self.idmap.extents
            ]
            linux["uidMappings"] = linux["gidMappings"] = extents
        linux["namespaces"] = [{"type": kind} for kind in kinds]
        if not self.host_network:
            path = {"path": str(self.netns)} if self.netns else {}
            linux["namespaces"].append({"type": "network", **path})
        if held.cgroups_path:
            devices = [*_DEVICES, *map(_of_host, self.devices)]
            linux["cgroupsPath"] = held.cgroups_path
            linux["resources"] = {"devices": devices, **(held.resources or {})}
        return linux


def write(folder: Path, spec: ContainerSpec, held: Held) -> None:
    """Make ``folder`` a bundle."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "config.json").write_text(json.dumps(spec.to_json(held)))


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "destination": mount.target,
        "type": mount.kind,
        "source": mount.source,
        "options": list(mount.options),
    }


def _device(kind: str, major: int | None, minor: int | None, access: str = "rwm") -> dict[str, Any]:
    device: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major is not None:
        device["major"] = major
    if minor is not None:
        device["minor"] = minor
    return device


def _of_host(path: str) -> dict[str, Any]:
    info = os.stat(path)
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
    return _device(kind, os.major(info.st_rdev), os.minor(info.st_rdev))


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
