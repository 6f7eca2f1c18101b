"""What a process in a container sees and can do, collected by one script per container.

The script runs under busybox's sh beside ``probe.c``, and its output is taken apart here; tests
then look at the facts without starting anything.
"""

from __future__ import annotations

import re

from container_kernel.runtime.profile import masked_paths

_SECTION = "@@"
SCRIPT = """set +e
section() { echo; echo "@@$1"; }
section who; id -u; id -g
section status; cat /proc/self/status
section namespaces; for n in pid mnt ipc uts net cgroup user; do
    echo "$n $(readlink /proc/self/ns/$n)"; done
section devices; find /dev -type c -o -type b -o -type p -o -type s
section folders; find /dev -type d
section content
for root in '' /proc/self/root /proc/1/root /proc/self/cwd/../../../.. /tmp/../; do
    for path in @MASKED@; do
        [ -e "$root$path" ] || continue
        echo "$root$path $(cat "$root$path" "$root$path"/* 2>/dev/null | head -c 99 | wc -c)"
    done; done
section written
for root in '' /proc/self/root /proc/1/root; do
    for path in @FILES@; do
        ( : >> "$root$path" ) 2>/dev/null && echo "$root$path"; done; done; true
section cgroup; find / -xdev -name release_agent -o -xdev -name notify_on_release 2>/dev/null; true
section environment; env
section host; hostname; cat /etc/machine-id 2>/dev/null; true
section routes; cat /proc/net/route /proc/net/ipv6_route
section links; ls /sys/class/net 2>/dev/null; true
section sockets; cat /proc/net/unix
section processes; cat /proc/[0-9]*/comm
section setuid; /setuid-probe who
section fds; /probe fds
section attempts; /probe attempts
section calls; /probe calls
section mounts; cat /proc/self/mountinfo
section end
"""

KEPT = (
    *("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Seccomp_filters", "Uid", "Gid"),
)
"""What of /proc/self/status says how a process is confined."""

WRITTEN = (
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/bus/pci/devices",
    "/proc/fs/nfsd/exports",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    "/sys/power/state",
)
"""Files that nobody inside may open for writing, where the host kernel has them."""


def script(*, quick: bool = False) -> str:
    """The script; without the sweep of system calls if ``quick``."""
    text = SCRIPT.replace("@MASKED@", " ".join(masked_paths()))
    text = text.replace("@FILES@", " ".join(WRITTEN))
    return text.replace("section calls; /probe calls\n", "") if quick else text


def read(container) -> str:
    """What a container says on its output, up to its end."""
    with open(container.stdout, closefd=False, errors="replace") as stdout:
        text = stdout.read()
    container.delete()
    return text


class Facts:
    """One container's answers; ``kind`` is how it was started."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.sections: dict[str, list[str]] = {}
        for part in f"\n{text}".split(f"\n{_SECTION}")[1:]:
            name, *lines = part.splitlines()
            self.sections[name] = [line for line in lines if line.strip()]
        assert "end" in self.sections, f"{kind}: it did not come to its end: {text[-2000:]}"

    def __getitem__(self, name: str) -> list[str]:
        return self.sections[name]

    def pairs(self, name: str) -> dict[str, str]:
        """A section of lines ``name value``."""
        return {key: value for key, _, value in (line.partition(" ") for line in self[name])}

    @property
    def status(self) -> dict[str, str]:
        """``/proc/self/status``."""
        return dict(line.split(":\t", 1) for line in self["status"] if ":\t" in line)

    @property
    def mounts(self) -> list[MountPoint]:
        """Every mount."""
        return [MountPoint(line) for line in self["mounts"]]


class MountPoint:
    """A line of ``/proc/self/mountinfo`` (proc(5))."""

    def __init__(self, line: str) -> None:
        head, _, tail = line.partition(" - ")
        fields = head.split()
        self.root = fields[3]
        self.target = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
        self.options = set(fields[5].split(","))
        self.propagation = fields[6:]
        self.kind = tail.split()[0]
