"""Uplink: a `Network` made real for one container, or for one after the other.

Everything is made before the container is: the OCI runtime joins the namespace, and the first
instruction inside finds its network up. ``none`` makes nothing, the runtime does that by itself.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError
from .network import PROXY_PORT, PROXY_URL, RESOLVER, Network

if TYPE_CHECKING:
    import subprocess

    from .host import Host
    from .netns import Netns
    from .pasta import Pasta

_PROXY = f"{__package__}.proxy"
_LOOPBACK_ONLY = "127.0.0.1 localhost\n::1 localhost\n"
HOST_WARNING = (
    "shares this host's network: it reaches what listens on the host's loopback too "
    "(--net pasta does not)"
)


_LASTING = ("pasta", "default", "listed")


def shared(host: Host, network: Network) -> Uplink:
    """A network for a container after which another may want the same; not to be closed by it.

    A pasta takes 25 ms to start and a proxy 60, so they are kept for the steps that follow: only
    one of these is there at a time, and none outlives its container. What was said is said once.
    """
    known = host.uplinks.get(network)
    if known is not None and known.is_alive:
        known.notice = ""
        return known
    if known is not None:
        known.close()
    made = Uplink(host, network)
    if network.kind in _LASTING:
        host.uplinks[network] = made
    return made


def done(host: Host, uplink: Uplink) -> None:
    """Give back what `shared` gave."""
    if host.uplinks.get(uplink.network) is not uplink:
        uplink.close()


class Uplink:
    """The network of a container; ``close`` ends what stands behind it.

    Raises:
        HostError: this host cannot have that network.
    """

    def __init__(self, host: Host, network: Network) -> None:
        self.network = network
        self.notice = ""
        """What the user should be told, in words."""
        self._host = host
        self._netns: Netns | None = None
        self._pasta: Pasta | None = None
        self._proxy: subprocess.Popen[str] | None = None
        self.is_host = network.kind == "host"
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def kind(self) -> str:
        """What it came to be: ``default`` is one or the other."""
        if self.is_host:
            return "host"
        return "pasta" if self._pasta is not None else self.network.kind

    @property
    def path(self) -> Path | None:
        """The network namespace for the OCI runtime to join; None lets it make one."""
        return self._netns.path if self._netns else None

    @property
    def env(self) -> dict[str, str]:
        """Variables that programs inside need to find the way out."""
        if self._proxy is None:
            return {}
        names = ("http_proxy", "https_proxy", "all_proxy")
        found = {name: PROXY_URL for low in names for name in (low, low.upper())}
        local = "localhost,127.0.0.1,::1"
        return {**found, "no_proxy": local, "NO_PROXY": local}

    @property
    def texts(self) -> dict[str, str]:
        """``/etc/hosts`` and ``/etc/resolv.conf`` for inside."""
        if self.is_host:
            return {name: _host_file(name) for name in ("/etc/hosts", "/etc/resolv.conf")}
        if self._pasta is None:
            return {"/etc/hosts": _LOOPBACK_ONLY, "/etc/resolv.conf": ""}
        return {"/etc/hosts": _host_file("/etc/hosts"), "/etc/resolv.conf": _resolv_conf()}

    @property
    def is_alive(self) -> bool:
        """Whether what stands behind it still runs."""
        has_pasta = self._pasta is None or self._pasta.is_alive
        return has_pasta and (self._proxy is None or self._proxy.poll() is None)

    def refused(self) -> list[str]:
        """Hosts, with their ports, that were asked for in vain since this was asked last."""
        if self._proxy is None or self._proxy.stdout is None:
            return []
        fd = self._proxy.stdout.fileno()
        os.set_blocking(fd, False)
        with suppress(BlockingIOError):
            return [*dict.fromkeys(os.read(fd, 1 << 16).decode(errors="replace").split())]
        return []

    def close(self) -> None:
        """End what stands behind it. The containers that use it have ended."""
        if self._proxy is not None:
            from . import carrier

            carrier.end(self._proxy)
        if self._pasta is not None:
            self._pasta.close()
        if self._netns is not None:
            self._netns.close()
        self._proxy = self._pasta = self._netns = None

    def _open(self) -> None:
        kind = self.network.kind
        if kind == "pasta":
            self._start_pasta()
        elif kind == "listed":
            self._start_proxy()
        elif kind == "default":
            try:
                self._start_pasta()
            except HostError as error:
                self.close()
                self.is_host = True
                self.notice = f"{error.message}; so it {HOST_WARNING}\nhint: {error.hint}"
        elif kind == "host":
            self.notice = f"it {HOST_WARNING}"

    def _start_pasta(self) -> None:
        from .pasta import Pasta  # this and the like: a container without a network starts without

        self._netns = self._new_netns()
        self._pasta = Pasta(self._netns)

    def _start_proxy(self) -> None:
        from . import carrier

        self._netns = self._new_netns()
        targets = [(target.host, target.port) for target in self.network.targets]
        orders = {"targets": targets, "upstream": self.network.upstream}
        with self._netns.listen(PROXY_PORT) as listening:
            self._proxy = carrier.start(_PROXY, orders, [listening])

    def _new_netns(self) -> Netns:
        from .netns import Netns

        return Netns(self._host.new_folder("net"))


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _resolv_conf() -> str:
    """The host's resolver by the address that pasta gives it; its other settings as they are."""
    lines = _host_file("/etc/resolv.conf").splitlines()
    servers = [
        line.split()[1] for line in lines if line.split()[:1] == ["nameserver"] and line.split()[1:]
    ]
    if not any("." in server for server in servers):
        return "".join(f"{line}\n" for line in lines)  # pasta answers for IPv4 resolvers only
    kept = [line for line in lines if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "".join(f"{line}\n" for line in [f"nameserver {RESOLVER}", *kept])
