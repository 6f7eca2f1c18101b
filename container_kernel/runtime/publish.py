"""Publish: a port of a container on the host's loopback.

The socket that listens is opened here, so that a port in use is said at once. A process in the
container's network namespace carries what arrives to the port inside; it works with any network a
container has, none included, and can be begun while the container runs.
"""

from __future__ import annotations

import errno
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from ..errors import CellError
from ..record import record
from . import carrier, netns

_HERE = "127.0.0.1"


@record
class Port:
    """A port inside and where it is on the host; 0 is any that is free."""

    inside: int
    outside: int


class Published:
    """A published port. ``outside`` is the host's.

    Raises:
        CellError: the host's port is in use, or not for us.
    """

    def __init__(self, port: Port) -> None:
        self.inside = port.inside
        self._listening = _listen(port)
        self.outside: int = self._listening.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where a browser on the host finds it."""
        return f"http://{_HERE}:{self.outside}/"

    def connect(self, namespace: Path) -> None:
        """Lead to that network namespace from now on; ``/proc/PID/ns/net`` is one too."""
        self.disconnect()
        if self._listening.fileno() < 0:
            return  # it was given back
        orders = {"port": self.inside}
        self._process = netns.inside(
            namespace, lambda: carrier.start(__name__, orders, [self._listening])
        )

    def disconnect(self) -> None:
        """Lead nowhere, and keep the port."""
        if self._process is not None:
            carrier.end(self._process)
            self._process = None

    def close(self) -> None:
        """Give the port back."""
        self.disconnect()
        self._listening.close()


def _listen(port: Port) -> socket.socket:
    try:
        return socket.create_server((_HERE, port.outside), backlog=128)
    except OSError as error:
        known = {errno.EADDRINUSE: "is in use", errno.EACCES: "is not for an ordinary user"}
        why = known.get(error.errno or 0, f"cannot be had: {error.strerror}")
        free = port.inside if port.outside != port.inside and port.inside > 1023 else 0
        raise CellError(
            f"port {port.outside} of this host {why}",
            hint=f"publish it as another: --publish {free}:{port.inside} "
            + ("" if free else "takes any that is free"),
        ) from error


# ---------------------------------------------------------------- inside the process


def main() -> None:
    """Serve until we are killed."""
    orders = carrier.orders()
    listening = socket.socket(fileno=orders["fds"][0])

    def handle(client: socket.socket) -> None:
        for host in (_HERE, "::1"):
            with suppress(OSError):
                server = socket.create_connection((host, orders["port"]), timeout=10)
                with server:
                    carrier.join(client, server)
                return

    carrier.serve(listening, handle)
