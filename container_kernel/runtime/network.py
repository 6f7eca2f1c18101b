"""Network: what a container may reach, as a value.

- ``none``: a network namespace of its own with loopback in it. The default of run cells.
- ``host``: the host's own, with all that listens on the host's loopback.
- ``pasta``: a user-mode network (passt.top): everything the host can reach, but neither the host's
  loopback nor a cloud's metadata service.
- ``listed``: a namespace with a way out to named hosts and ports only (see `proxy`).
- ``default``: what builds get: pasta where it can run, else the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..record import record

if TYPE_CHECKING:
    import ipaddress

KINDS = ("none", "host", "pasta")
"""The networks that are called by name."""
PROXY_PORT = 3128
"""Where the proxy to listed hosts is on the container's loopback."""
PROXY_URL = f"http://127.0.0.1:{PROXY_PORT}"
PORTS = (80, 443)
"""The ports of a host named without one."""

RESOLVER = "169.254.1.1"
"""Where pasta has the host's resolver answer, also one that is on the host's loopback."""

METADATA = (
    "169.254.169.0/24",
    "169.254.170.0/24",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
)
"""Where clouds answer virtual machines with credentials; no container is to reach it."""


@record(order=True)
class Target:
    """A host and a port that may be reached; ``*.example.org`` is every host below that name."""

    host: str
    port: int

    def covers(self, host: str, port: int) -> bool:
        """Whether ``host`` and ``port``, as a client wrote them, are this."""
        name = host.lower().rstrip(".")
        if port != self.port:
            return False
        if self.host.startswith("*."):
            return name.endswith(self.host[1:])
        return name == self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@record
class Network:
    """One of the kinds above. ``upstream`` is the site's own proxies, by scheme."""

    kind: str = "none"
    targets: tuple[Target, ...] = ()
    upstream: tuple[tuple[str, str], ...] = ()


NONE = Network()
HOST = Network("host")
PASTA = Network("pasta")
DEFAULT = Network("default")


def is_forbidden(address: str) -> bool:
    """Whether no container may be led to that address, whoever named it.

    These are the host's loopback, link-local addresses, metadata services, what is no host's
    address, and IPv6 addresses that mean such an IPv4 address.
    """
    import ipaddress  # 6 ms, for those who have a list

    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or _behind_nat64(found)
        if inner is not None and is_forbidden(str(inner)):
            return True
    is_odd = found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast
    return is_odd or any(found in ipaddress.ip_network(known) for known in METADATA)


def _behind_nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """RFC 6052: the well-known prefix, with an IPv4 address at its end."""
    import ipaddress

    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
