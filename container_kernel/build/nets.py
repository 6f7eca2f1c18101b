"""Nets: what the text of ``--net`` means on this host.

``python``, ``apt`` and ``npm`` are the hosts that this host's own configuration of pip, apt and npm
names; ``c.ContainerKernel.networks`` names more sets, or other ones under these names.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..errors import BadArguments
from ..runtime.host import find_tool
from ..runtime.network import DEFAULT, KINDS, PORTS, Network, Target, is_forbidden
from .site import Site

Sets = Mapping[str, Sequence[str]]
_SETTING = "c.ContainerKernel.networks"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_HOST = re.compile(r"(?P<host>(\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?")


def resolve(text: str | None, site: Site, sets: Sets) -> Network:
    """The network that ``--net text`` asks for; None asks for what builds get.

    Raises:
        BadArguments: a name nobody knows, a set with nothing in it, something that is no host.
    """
    if text is None:
        return DEFAULT
    if text in KINDS:
        return Network(text)
    words = [word.strip() for word in text.split(",")]
    targets = {target: None for word in words for target in _targets(word, words, site, sets)}
    return Network("listed", tuple(sorted(targets)), _upstream(site))


def _targets(word: str, words: Sequence[str], site: Site, sets: Sets) -> Iterable[Target]:
    if word in KINDS and len(words) > 1:
        raise BadArguments(
            f"--net {word} stands alone, found {','.join(words)!r}",
            hint=f"write --net {word}, or leave {word} out",
        )
    if word in sets:
        return [target for one in sets[word] for target in _literal(one, f"{_SETTING}[{word!r}]")]
    if word in _SETS:
        found = [_of_url(url) for url in _SETS[word](site)]
        targets = [target for target in found if target]
        if not targets:
            raise BadArguments(
                f"--net {word}: this host's configuration names no host for {word}",
                hint=f"name hosts, as in --net example.org:443, or set {_SETTING}",
            )
        return targets
    if _NAME.fullmatch(word):
        known = ", ".join([*KINDS, *sorted({*_SETS, *sets})])
        raise BadArguments(
            f"--net knows no network {word!r}: there are {known}, and hosts like example.org:443",
            hint=f"write one of these, or define {word!r} in {_SETTING}",
        )
    return _literal(word, "--net")


def _literal(text: str, where: str) -> list[Target]:
    match = _HOST.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise BadArguments(
            f"{where} takes hosts like example.org, example.org:443, *.example.org, found {text!r}",
            hint="several are separated by commas, without spaces",
        )
    host = match["host"].strip("[]").lower().rstrip(".")
    try:
        bad = is_forbidden(str(ipaddress.ip_address(host)))
    except ValueError:
        bad = host == "localhost" or host.endswith(".localhost")
    if bad:
        raise BadArguments(
            f"{where}: {host} is an address of this host or of its cloud, which no list opens",
            hint="--net host shares the host's network, with all that listens there",
        )
    return [Target(host, one) for one in ([port] if port else PORTS)]


def _of_url(url: str) -> Target | None:
    try:
        parts = urlsplit(url)
        standard = {"http": 80, "https": 443}.get(parts.scheme)
        port = parts.port or standard
    except ValueError:
        return None
    return Target(parts.hostname, port) if parts.hostname and port and standard else None


def _upstream(site: Site) -> tuple[tuple[str, str], ...]:
    found = {
        name.lower().removesuffix("_proxy"): value
        for name, value in site.env.items()
        if name.lower().endswith("_proxy")
    }
    return tuple(sorted(found.items()))


# ---------------------------------------------------------------- named sets


def _python(site: Site) -> list[str]:
    """The indexes; pip's own where none is configured, or only more of them."""
    named = [site.env.get(name, "") for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")]
    return [*(named[0].split() or _default_of_pip()), *named[1].split()]


def _default_of_pip() -> list[str]:
    try:
        index: Any = importlib.import_module("pip._internal.models.index")
    except ImportError:
        return []
    PyPI = index.PyPI
    return [str(PyPI.url), f"https://{PyPI.file_storage_domain}"]


def _apt(site: Site) -> list[str]:
    lines = re.findall(r"^URIs:(.*)$", site.apt_sources, re.MULTILINE)
    return [url for line in lines for url in line.split()]


def _npm(site: Site) -> list[str]:
    named = re.findall(r"^\s*(?:@[^:\s]+:)?registry\s*=\s*(\S+)", site.npmrc, re.MULTILINE)
    return named or _default_of_npm()


def _default_of_npm() -> list[str]:
    npm = find_tool("npm")
    if npm is None:
        return []
    argv = [str(npm), "config", "get", "registry"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    return done.stdout.split()


_SETS: Mapping[str, Callable[[Site], list[str]]] = {"python": _python, "apt": _apt, "npm": _npm}
