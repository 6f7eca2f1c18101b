"""Lines: the open connections to registries, so that none is waited for once the user has enough.

A thread that waits for bytes looks at nothing else; what wakes it is its connection's end.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class Lines:
    """Connections that can be cut all at once, from any thread or signal handler."""

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()
        self._is_cut = False

    def cut(self) -> None:
        """End all connections there are, and those to come: whoever reads from one fails."""
        self._is_cut = True
        for line in [*self._open]:
            _end(line)

    @property
    def pools(self) -> dict[str, Any]:
        """What a pool manager of urllib3 makes its connections by, so that they are known here."""

        class Plain(HTTPConnection):
            def connect(inner) -> None:
                super().connect()
                self._add(inner.sock)

        class Secure(HTTPSConnection):
            def connect(inner) -> None:
                super().connect()
                self._add(inner.sock)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}

    def _add(self, line: socket.socket | None) -> None:
        if line is not None:
            self._open.add(line)
            if self._is_cut:
                _end(line)


def _end(line: socket.socket) -> None:
    with suppress(OSError):  # it has ended
        socket.socket.shutdown(line, socket.SHUT_RDWR)
