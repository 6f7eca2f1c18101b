"""A host's network made up for a test: a namespace with addresses, in which listeners answer.

It has what a machine in a cloud has: an address and a gateway in both families, a loopback, a
metadata service, and peers elsewhere (which answer from its loopback device).
"""

import contextlib
import socket
import subprocess
import threading
from pathlib import Path

from container_kernel.runtime import netns, network
from container_kernel.runtime.host import find_tool

PEER, PEER6 = "203.0.113.5", "fd99::5"
METADATA, METADATA6 = "169.254.169.254", "fd00:ec2::254"
GATEWAY, GATEWAY6 = "10.77.0.1", "fd77::1"
PORT = 8080
_COMMANDS = f"""
link add eth0 type bridge
link set lo up
link set eth0 up
addr add 10.77.0.2/24 dev eth0
addr add fd77::2/64 dev eth0 nodad
addr add {PEER}/32 dev lo
addr add {PEER6}/128 dev lo nodad
addr add {METADATA}/32 dev lo
addr add {METADATA6}/128 dev lo nodad
addr add 100.64.0.9/32 dev lo
route add default via {GATEWAY} dev eth0
-6 route add default via {GATEWAY6} dev eth0
"""


class Outer:
    """``asked`` is who was reached, by the address that answered."""

    def __init__(self, host):
        self._netns = netns.Netns.__new__(netns.Netns)
        self._netns.path = host.new_folder("outer") / "net"
        self._netns.path.touch()
        netns.with_own_directory(self._make)
        self.asked = []
        self._sockets = []
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            self.listen(family, address)

    def inside(self, action):
        """Do ``action`` as a process of this host would."""
        return netns.inside(self._netns.path, action)

    def listen(self, family, address):
        def make():
            server = socket.socket(family)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, PORT))
            server.listen()
            return server

        server = self.inside(make)
        self._sockets.append(server)
        threading.Thread(target=self._serve, args=(server,), daemon=True).start()

    def resolver(self):
        """The first resolver of this host's resolv.conf, answering here: what it was asked."""
        lines = Path("/etc/resolv.conf").read_text().splitlines()
        address = next(line.split()[1] for line in lines if line.startswith("nameserver"))

        def make():
            if not address.startswith("127."):
                subprocess.run([find_tool("ip"), "addr", "add", address, "dev", "lo"], check=True)
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((address, 53))
            server.settimeout(10)
            return server

        server = self.inside(make)
        self._sockets.append(server)
        return server

    def close(self):
        for server in self._sockets:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self._netns.close()

    def _make(self):
        netns.syscalls.unshare(netns.syscalls.CLONE_NEWNET)
        for line in filter(None, _COMMANDS.splitlines()):
            subprocess.run([find_tool("ip"), *line.split()], check=True, capture_output=True)
        flags = netns.syscalls.MS_BIND
        netns.syscalls.mount("/proc/thread-self/ns/net", str(self._netns.path), "", flags)

    def _serve(self, server):
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with client:
                    self.asked.append(client.getsockname()[0])
                    client.settimeout(1)
                    head = b""
                    with contextlib.suppress(OSError):
                        head = client.recv(4096)
                    self.head = head
                    client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")


assert network.METADATA
