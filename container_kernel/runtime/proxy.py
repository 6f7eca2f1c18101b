"""Proxy: the one way out of a container that may reach named hosts only.

It listens inside the container's network namespace, which has no other way out, and connects from
the host's. What it reads comes from a container that may be hostile: requests are parsed by the
standard library's ``http.server``, and all this adds is which of them are answered. A host is
allowed by its name and port; its addresses are looked up here, once, and none that `network`
forbids is connected to, so no name can be made to mean the host's loopback.

Rejected: tinyproxy, which cannot be given a socket and would have to listen where every user of
the host can use it; mitmproxy and proxy.py, which bring much more than this takes.
"""

from __future__ import annotations

import base64
import http.server
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from . import carrier
from .network import Target, is_forbidden

_TIMEOUT_S = 30
_HOP = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"}


class Refused(Exception):
    """Not to be reached; the message goes to the client."""

    status = 403


class Unreachable(Refused):
    """It may be reached, and cannot."""

    status = 502


class Rules:
    """Who may be reached, and how. ``tell`` is told what was refused."""

    def __init__(self, targets: Iterable[Target], upstream: Mapping[str, str]) -> None:
        self._targets = tuple(targets)
        self._upstream = upstream

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to an address of an allowed host.

        Raises:
            Refused: the host is not allowed, or no address of it may be reached.
        """
        self.check(host, port)
        error: OSError | None = None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as reason:
            raise Unreachable(f"{host} is not known: {reason}") from reason
        addresses = [(str(info[4][0]), port) for info in found if not is_forbidden(str(info[4][0]))]
        if not addresses:
            raise self._refuse(host, port, "is an address of this host or of its cloud")
        for address in addresses:
            try:
                return socket.create_connection(address, timeout=_TIMEOUT_S)
            except OSError as reason:
                error = reason
        raise Unreachable(f"{host}:{port} does not answer: {error}")

    def check(self, host: str, port: int) -> None:
        """That a host is allowed, as far as its name tells.

        Raises:
            Refused: it is not.
        """
        if not any(target.covers(host, port) for target in self._targets):
            raise self._refuse(host, port, "is not in this container's --net list")
        with suppress(ValueError):
            if is_forbidden(host):
                raise self._refuse(host, port, "is an address of this host or of its cloud")

    def proxy(self, scheme: str, host: str) -> urllib.parse.SplitResult | None:
        """The site's own proxy for that host, if it is to be asked through one."""
        url = self._upstream.get(scheme) or self._upstream.get("all")
        if not url or self._is_direct(host):
            return None
        return urllib.parse.urlsplit(url if "//" in url else f"http://{url}")

    def _is_direct(self, host: str) -> bool:
        direct: Any = getattr(urllib.request, "proxy_bypass_environment")  # noqa: B009
        return bool(direct(host, dict(self._upstream)))

    def _refuse(self, host: str, port: int, why: str) -> Refused:
        name = str(Target(host.lower(), port))
        if name.isascii() and name.isprintable():
            with suppress(OSError):  # nobody has read it for long
                os.write(1, f"{name}\n".encode())
        return Refused(f"{name} {why}")


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client: one request, then bytes as they come."""

    rbufsize = 0  # what follows the head is not ours to read
    timeout = _TIMEOUT_S
    rules: Rules

    def do_CONNECT(self) -> None:
        """A tunnel: TLS, and whatever else."""
        try:
            host, port = _authority(self.path)
            server = self._tunnel(host, port)
        except Refused as reason:
            self._answer(reason)
            return
        with server:
            self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            carrier.join(self.connection, server)

    def pass_on(self) -> None:
        """A plain request, ``GET http://host/path``."""
        self.close_connection = True
        try:
            url = urllib.parse.urlsplit(self.path)
            if url.scheme != "http" or not url.hostname:
                raise Refused("this is a proxy: it takes http://host/path, and CONNECT host:port")
            host, port = url.hostname, url.port or 80
            server, is_proxy = self._server(host, port)
        except ValueError:
            self._answer(Refused("this is no URL"))
            return
        except Refused as reason:
            self._answer(reason)
            return
        path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
        with server:
            server.sendall(
                self._head(self.path if is_proxy else path, url.netloc.rpartition("@")[2])
            )
            carrier.join(self.connection, server)

    def _server(self, host: str, port: int) -> tuple[socket.socket, bool]:
        self.rules.check(host, port)
        proxy = self.rules.proxy("http", host)
        if proxy is None:
            return self.rules.connect(host, port), False
        self._authorization = _authorization(proxy)
        return _connect_to(proxy), True

    def _tunnel(self, host: str, port: int) -> socket.socket:
        self.rules.check(host, port)
        proxy = self.rules.proxy("https", host)
        if proxy is None:
            return self.rules.connect(host, port)
        server = _connect_to(proxy)
        name = str(Target(host, port))
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}", *_authorization(proxy), "", ""]
        server.sendall("\r\n".join(lines).encode("latin-1"))
        answer = _read_head(server)
        if answer.split(b" ")[1:2] != [b"200"]:
            raise Unreachable(
                f"the site's proxy says: {answer.partition(bytes([13]))[0].decode('latin-1')}"
            )
        return server

    _authorization: list[str] = []  # noqa: RUF012

    def _head(self, path: str, host: str) -> bytes:
        kept = [(k, v) for k, v in self.headers.items() if k.lower() not in _HOP | {"host"}]
        lines = [f"{self.command} {path} HTTP/1.1", f"Host: {host}", *self._authorization]
        lines += [*(f"{name}: {value}" for name, value in kept), "Connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1", "replace")

    def _answer(self, reason: Refused) -> None:
        body = f"container-kernel: {reason}\n".encode()
        self.close_connection = True
        self.send_response(reason.status, str(reason).replace("\n", " ")[:200])
        for name, value in (("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: URLs may have passwords in them."""

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = pass_on


def _authority(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) or not host:
        raise Refused("CONNECT takes host:port")
    return host.strip("[]"), int(port)


def _connect_to(proxy: urllib.parse.SplitResult) -> socket.socket:
    """The host's own configuration names it, so it may be anywhere."""
    try:
        return socket.create_connection((proxy.hostname, proxy.port or 80), timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise Unreachable(f"the site's proxy {proxy.hostname} does not answer: {error}") from error


def _authorization(proxy: urllib.parse.SplitResult) -> list[str]:
    if proxy.username is None:
        return []
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return [f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}"]


def _read_head(server: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < 65536:
        byte = server.recv(1)
        if not byte:
            break
        head += byte
    return head


def main() -> None:
    """Serve until we are killed."""
    orders = carrier.orders()
    targets = [Target(host, port) for host, port in orders["targets"]]
    Handler.rules = Rules(targets, dict(orders["upstream"]))
    listening = socket.socket(fileno=orders["fds"][0])
    os.set_blocking(1, False)

    def handle(client: socket.socket) -> None:
        Handler(client, client.getsockname(), None)  # type: ignore[arg-type]

    carrier.serve(listening, handle)
