"""Probe: what this host gives, for ``doctor``: one finding each, with a remedy for each lack."""

from __future__ import annotations

import os
from pathlib import Path

from .. import syscalls
from ..errors import HostError
from ..record import record
from . import advisories, apparmor, cgroup, level, selinux
from .advisories import Version
from .host import INSTALL, find_runtime, find_tool, runtime_version
from .limits import NOT_HELD, Limits, how
from .namespace import Namespace, forbidden
from .pasta import why_not
from .subordinate import REMEDY, of_root


@record
class Finding:
    """One line of ``doctor``: what was looked for, what was found, what to do if it lacks.

    ``cves`` are known faults of what was found.
    """

    name: str
    found: str
    is_ok: bool
    remedy: str = ""
    cves: tuple[str, ...] = ()


def probe(namespace: Namespace, oci_runtime: str | None, home: Path) -> list[Finding]:
    """What this host gives, one line each, with a remedy for each lack. ``home`` is the store's."""
    return [
        *_isolation(namespace),
        _runtime(oci_runtime),
        _host_kernel(),
        *_limits(namespace, home),
        _overlay(),
        _seccomp(),
        *_labels(is_rootless=namespace.is_rootless),
        _tool("catatonit", "reaps processes in containers", "catatonit"),
        _tool("mmdebstrap", "bootstraps Debian bases", "mmdebstrap"),
        _network(),
    ]


def _parent(namespace: Namespace) -> cgroup.CgroupParent | None:
    namespace.settle()
    return cgroup.find_parent(namespace.run_dir.name, is_rootless=namespace.is_rootless)


def _isolation(namespace: Namespace) -> list[Finding]:
    found = level.of(namespace, _parent(namespace))
    is_ok = namespace.level != "single-uid"
    root = [] if namespace.is_rootless else [_root_inside()]
    return [
        Finding("isolation", f"{found.name}: {found.words}", is_ok, REMEDY),
        *(Finding("isolation", lack, False, REMEDY) for lack in namespace.lacks),
        *root,
    ]


def _root_inside() -> Finding:
    ids = of_root()
    found = (
        f"{ids.start} to {ids.start + ids.count - 1} of this host, which are lent to root"
        if ids
        else "the host's own: /etc/subuid and /etc/subgid lend root none"
    )
    return Finding("ids in containers", found, True)


def namespaces() -> list[Finding]:
    """Kinds of namespaces that a container needs and this host has none of.

    To be asked before one is in a user namespace, which has limits of its own.
    """
    return [
        Finding("namespaces", f"no {kind} namespaces: {file} is 0", False, remedy)
        for kind, file, remedy in forbidden()
    ]


def _runtime(wanted: str | None) -> Finding:
    try:
        path = find_runtime(wanted)
    except HostError as error:
        return Finding("OCI runtime", error.message, False, error.hint or "")
    version = runtime_version(path)
    name = path.name if path.name in ("crun", "runc") else ""
    return _with_faults("OCI runtime", str(path), name, version)


def _host_kernel() -> Finding:
    return _with_faults("host kernel", "Linux", "Linux", syscalls.linux_version())


def _with_faults(name: str, what: str, program: str, version: Version) -> Finding:
    text = f"{what} {'.'.join(map(str, version)) or 'of unknown version'}"
    faults = advisories.open_in(program, version)
    if not faults:
        return Finding(name, text, True)
    listed = "; ".join(f"{fault.cve} ({fault.about})" for fault in faults)
    return Finding(
        name,
        f"{text}, which by its version has {listed}",
        True,
        "upgrade it; a distribution may have mended it under the same version",
        tuple(fault.cve for fault in faults),
    )


def _limits(namespace: Namespace, home: Path) -> list[Finding]:
    parent = _parent(namespace)
    disk = next(folder for folder in (home, *home.parents) if folder.exists())
    words = how(Limits(disk=disk), parent)
    names = {"memory_bytes": "memory", "pids": "processes", "cpus": "processors", "io_bps": "disk"}
    found = "; ".join(f"{name} by {words[field]}" for field, name in names.items()
                      if words[field] != NOT_HELD)  # fmt: skip
    lacking = [name for field, name in names.items() if words[field] == NOT_HELD]
    missing = f"; not held: {', '.join(lacking)}" if lacking else ""
    remedy = cgroup.remedy() if namespace.is_rootless else "mount cgroups writable for us"
    findings = [Finding("limits", found + missing, parent is not None, remedy)]
    if namespace.is_rootless and parent and (absent := cgroup.undelegated(parent)):
        lack = f"not delegated: {', '.join(absent)}"
        findings.append(Finding("limits", lack, False, cgroup.DELEGATE))
    return findings


def _overlay() -> Finding:
    is_known = "\toverlay\n" in Path("/proc/filesystems").read_text()
    # A module is loaded by the first mount, also by that of a user.
    modules = Path("/lib/modules", os.uname().release, "modules.dep")
    is_there = is_known or (modules.exists() and "/overlay.ko" in modules.read_text())
    found = "in the kernel" if is_known else "a module of the kernel" if is_there else "missing"
    return Finding("overlayfs", found, is_there, "sudo modprobe overlay")


def _seccomp() -> Finding:
    is_there = Path("/proc/sys/kernel/seccomp").is_dir()
    return Finding(
        "seccomp", "in the kernel" if is_there else "missing", is_there, "use a kernel that has it"
    )


def _labels(*, is_rootless: bool) -> list[Finding]:
    """What the host's security modules do for containers; none is needed."""
    found = []
    if apparmor.is_on():
        profile = apparmor.profile() or "no profile for containers is loaded (docker-default, say)"
        why_not = "not used: an ordinary user may not read which profiles are loaded"
        found.append(Finding("AppArmor", why_not if is_rootless else profile, True))
    if selinux.is_on():
        label = selinux.label()
        words = "the policy has no types for containers"
        if label is not None:
            lent = selinux.remedy(Path("NOTEBOOK-FOLDER"), label)
            words = f"{label.process}; run cells need their folder lent to containers: {lent}"
        found.append(Finding("SELinux", words, True))
    return found


def _network() -> Finding:
    lack = why_not()
    if lack is None:
        return Finding("network", f"{find_tool('pasta')}: builds have a network of their own", True)
    return Finding("network", f"{lack[0]}: builds share the host's network", False, lack[1])


def _tool(name: str, purpose: str, package: str) -> Finding:
    found = find_tool(name)
    return Finding(
        name,
        f"{found} ({purpose})" if found else f"missing ({purpose})",
        found is not None,
        f"{INSTALL} {package}",
    )
