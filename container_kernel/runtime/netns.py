"""Netns: a network namespace that is ours, made before the container that joins it.

It belongs to our user namespace, not to the container's: nobody in the container can change an
interface, a route or a setting of it, whatever capability they are given there.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .. import syscalls
from ..folders import remove_tree
from .network import METADATA
from .overlay import with_own_directory

T = TypeVar("T")

_SETTINGS = {
    # A port below 1024 takes a capability over the namespace, which the container has not.
    "ipv4/ip_unprivileged_port_start": "0",
    # A new address may be used at once: there is nobody on this link who could have it too.
    "ipv6/conf/default/accept_dad": "0",
}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
# linux/rtnetlink.h
_RTM_NEWROUTE, _NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 24, 0x1, 0x4, 0x400
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNREACHABLE, _RTA_DST = 254, 4, 7, 1


class Netns:
    """A network namespace with loopback up and no way to metadata services, open at ``path``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "net"
        self.path.touch()
        with_own_directory(self._make)

    def listen(self, port: int) -> socket.socket:
        """A socket that listens on the namespace's loopback."""
        return inside(self.path, lambda: socket.create_server(("127.0.0.1", port), backlog=128))

    def close(self) -> None:
        """Forget it; it is gone when the last process in it is."""
        with suppress(OSError):
            syscalls.umount(str(self.path), syscalls.MNT_DETACH)
        remove_tree(self.path.parent)

    def _make(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        for name, value in _SETTINGS.items():
            with suppress(OSError):  # a host without IPv6
                Path(f"/proc/sys/net/{name}").write_text(value)
        _loopback_up()
        for destination in METADATA:
            _refuse(ipaddress.ip_network(destination))
        syscalls.mount("/proc/thread-self/ns/net", str(self.path), "", syscalls.MS_BIND)


def inside(path: Path, action: Callable[[], T]) -> T:
    """What ``action`` returns when it is done in the network namespace at ``path``.

    It is run in a thread of its own. Sockets stay what they are: made there, used anywhere.
    """
    results: list[T] = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def act() -> None:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        results.append(action())

    try:
        with_own_directory(act)
    finally:
        os.close(fd)
    return results[0]


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _refuse(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    """Add a route that answers "unreachable" (rtnetlink(7))."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    address = network.network_address.packed
    route = struct.pack("=8BI", family, network.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0,
                        _RTN_UNREACHABLE, 0)  # fmt: skip
    body = route + struct.pack("=HH", 4 + len(address), _RTA_DST) + address
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE
    head = struct.pack("=IHHII", 16 + len(body), _RTM_NEWROUTE, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(head + body)
        error = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
    if error and network.version == 4:  # a host may be without IPv6, and then nothing leads there
        raise OSError(-error, os.strerror(-error), str(network))
