"""Profile: what a process in a container may do.

The capability sets, masked and read-only paths and device limits of the default security profile;
the system call filter is the data file ``seccomp.json`` beside this module. The lists are those
of podman and moby, made narrower: no raw sockets, no device nodes, no audit writes.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BUILD_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What package managers need: podman's eleven."""

AS_ROOT_CAPABILITIES = tuple(
    name for name in BUILD_CAPABILITIES if name not in ("CAP_SETFCAP", "CAP_NET_BIND_SERVICE")
)
"""What a run cell gets that asks to be root."""

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE
    SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()  # noqa: SIM905
)
"""All there are, each at its number (linux/capability.h)."""

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

_THERMAL = "/sys/devices/system/cpu/cpu*/thermal_throttle"

READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

PRETENDED = (
    "chown",
    "chown32",
    "fchown",
    "fchown32",
    "fchownat",
    "lchown",
    "lchown32",
    "capset",
    "mknod",
    "mknodat",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setuid",
)
"""Calls that "succeed" without effect in a build with a single mapped id.

Package managers hand files to other users and drop privileges; with one id there is nobody to
hand them to. The OCI runtime spec allows SCMP_ACT_ERRNO with errno 0.
"""

_SECCOMP = Path(__file__).with_name("seccomp.json")
# The native one only: 32-bit socketcall(2) would hide its arguments from the filter.
_ARCHITECTURES = {"x86_64": ["SCMP_ARCH_X86_64"], "aarch64": ["SCMP_ARCH_AARCH64"]}
_read: dict[bool, dict[str, Any]] = {}


@functools.cache
def masked_paths() -> tuple[str, ...]:
    """What of /proc and /sys shows nothing: ``MASKED_PATHS``, and how hot each processor is."""
    return (*MASKED_PATHS, *sorted(map(str, Path("/").glob(_THERMAL.lstrip("/")))))


def seccomp(*, pretend_ownership: bool = False) -> dict[str, Any]:
    """The ``linux.seccomp`` part of a runtime spec, for this machine's architecture.

    ``pretend_ownership`` answers calls that change owners with success, see ``PRETENDED``.
    """
    if pretend_ownership not in _read:
        filter_: dict[str, Any] = json.loads(_SECCOMP.read_text())
        filter_["architectures"] = _ARCHITECTURES.get(os.uname().machine, [])
        if pretend_ownership:
            filter_["syscalls"] = _pretend(filter_["syscalls"])
        _read[pretend_ownership] = filter_
    return _read[pretend_ownership]


def _pretend(rules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [
        {**rule, "names": [name for name in rule["names"] if name not in PRETENDED]}
        for rule in rules
    ]
    return [*kept, {"names": list(PRETENDED), "action": "SCMP_ACT_ERRNO", "errnoRet": 0}]
