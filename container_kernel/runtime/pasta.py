"""Pasta: a user-mode network for a network namespace of ours (the package passt).

It runs beside the containers, in our process namespace, and dies with it. What it is told: forward
no port either way, so that neither side sees the other's loopback; map the gateway's address to
nothing; answer names by asking the host's resolver. Written for version 2023-03 on.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from .. import syscalls
from ..errors import HostError
from . import apparmor
from .host import find_tool
from .netns import Netns
from .network import RESOLVER

_TUN = "/dev/net/tun"
_OPTIONS = (
    *("--config-net", "--quiet", "--ns-ifname", "eth0", "--no-dhcp", "--no-dhcpv6", "--no-ra"),
    *("-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw"),
)

_PROFILE = "/etc/apparmor.d/usr.bin.passt"
_UNCONFINE = (
    "this host's AppArmor lets pasta write to few folders only; an administrator can end that: "
    f"sudo ln -s {_PROFILE} /etc/apparmor.d/disable/; sudo apparmor_parser -R {_PROFILE}"
)


def why_not() -> tuple[str, str] | None:
    """What is missing for it on this host, and the remedy; None when nothing is."""
    if find_tool("pasta") is None:
        return "pasta is not installed", "sudo apt-get install -y passt"
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = "sudo modprobe tun && sudo chmod 666 /dev/net/tun"
        return f"{_TUN} cannot be opened: {error.strerror}", remedy
    return None


class Pasta:
    """One running pasta. When this returns, the namespace has its addresses and routes.

    Raises:
        HostError: it cannot run here; the message says why.
    """

    def __init__(self, netns: Netns) -> None:
        lack = why_not()
        if lack:
            raise HostError(lack[0], hint=lack[1])
        folder = netns.path.parent
        self._pid_file = folder / "pasta.pid"
        log = folder / "pasta.log"
        argv = [str(find_tool("pasta")), *_OPTIONS, "--dns-forward", RESOLVER]
        argv += ["--pid", str(self._pid_file), "--log-file", str(log)]
        # In our user namespace we may enter the other one; as root it would become "nobody" first.
        argv += [*(("--runas", "0") if os.getuid() == 0 and _is_initial() else ())]
        argv += ["--netns-only", "--netns", str(netns.path)]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            cwd="/", env={}, check=False,
        )  # fmt: skip
        if done.returncode:
            reason = _reason(done.stderr, log)
            is_confined = "Permission denied" in reason and apparmor.is_on()
            hint = _UNCONFINE if is_confined else None
            raise HostError(f"pasta cannot start: {reason}", hint=hint)
        self._pid = int(self._pid_file.read_text())
        self._pidfd = os.pidfd_open(self._pid)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._pidfd >= 0 and not syscalls.readable([self._pidfd], 0)

    def close(self) -> None:
        """End it."""
        if self._pidfd < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):  # it is ours since we are its subreaper
            os.waitpid(self._pid, 0)
        os.close(self._pidfd)
        self._pidfd = -1
        self._pid_file.unlink(missing_ok=True)


def _is_initial() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _reason(said: str, log: Path) -> str:
    with suppress(OSError):
        said += log.read_text(errors="replace")
    lines = [line.rpartition("ERROR:")[2].strip() for line in said.splitlines()]
    kept = [line for line in lines if line and "syslog" not in line and "version" not in line]
    return kept[-1] if kept else "no message"
