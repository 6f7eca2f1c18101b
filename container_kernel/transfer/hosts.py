"""Hosts: what the name of a registry's host tells, before anything is said to it."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from urllib.parse import urlsplit

_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"
# What OpenSSL calls the answer of a server that took our greeting for a bad request.
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}


def api_host(registry: str) -> str:
    """Where the registry of that name listens: one has another name there."""
    return _HUB_API if registry == _HUB else registry


def api_path(registry: str, path: str) -> str:
    """The repository's path there: the same registry has a folder that may be left out."""
    return f"library/{path}" if registry == _HUB and "/" not in path else path


def is_loopback(netloc: str) -> bool:
    """True when ``host`` or ``host:port`` is this host by its very name."""
    host = _host(netloc)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_near(host: str) -> bool:
    """True when a name leads to this host or its link, where only this host's own may ask."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False  # connecting will tell, or a proxy knows it
    addresses = (ipaddress.ip_address(text.partition("%")[0]) for text in found)
    return any(one.is_loopback or one.is_link_local or one.is_unspecified for one in addresses)


def speaks_tls(netloc: str, timeout_s: float) -> bool:
    """False when the host answers in plain HTTP; a certificate that is wrong is still TLS."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    parts = urlsplit(f"//{netloc}")
    host = _host(netloc)
    try:
        with (
            socket.create_connection((host, parts.port or 443), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        return error.reason not in _NOT_TLS
    except OSError:
        return True  # whoever says nothing is not spoken to in the clear


def _host(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""
