"""Installed: which packages an image has, by what its package managers wrote down in it.

Debian's packages are in dpkg's status file, Python's in ``*.dist-info`` folders (PEP 376, core
metadata), Node's in ``node_modules``. An image is anybody's: files are read without following a
link out of it and up to a bound, and what is no name or no version is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.parser import HeaderParser
from urllib.parse import quote

from ..record import record
from ..runtime.view import Files
from .site import os_release_field

_DPKG_STATUS = "/var/lib/dpkg/status"
# Debian's own Python packages lie here; dpkg knows them.
_DEBIANS_PYTHON = "/usr/lib/python3/dist-packages"
_NAME = re.compile(r"(@[\w.~-]{1,200}/)?[\w.+~-]{1,200}", re.ASCII)
_VERSION = re.compile(r"[\w.!+:~-]{1,200}", re.ASCII)
_LICENCE_FIELD = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)
_LICENCE_CLASS = "License :: OSI Approved :: "
_LONGEST_LICENCE = 100  # some put the whole text there


@record(order=True)
class Package:
    """One installed package; ``kind`` is ``deb``, ``pypi`` or ``npm``.

    ``licence`` is what the package says of itself, in its own words. ``url`` is where it came from
    when that was no index. ``distro`` is the Debian-like system's id and release.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    licence: str = ""
    url: str = ""
    distro: tuple[str, str] = ("", "")

    @property
    def plain_name(self) -> str:
        """The name by which packages are compared: Python's as PEP 503 normalises it."""
        return re.sub(r"[-_.]+", "-", self.name).lower() if self.kind == "pypi" else self.name

    @property
    def purl(self) -> str:
        """Its package URL (purl-spec)."""
        name = quote(self.plain_name, safe="/")
        if self.kind != "deb":
            return f"pkg:{self.kind}/{name}@{quote(self.version, safe=':')}"
        system, release = self.distro
        details = f"arch={self.architecture}" + (f"&distro={release}" if release else "")
        version = quote(self.version, safe=":")
        return f"pkg:deb/{system or 'debian'}/{name}@{version}?{details}"

    @property
    def pinned(self) -> str:
        """As its package manager takes exactly this one."""
        if self.kind == "deb":
            return f"{self.name}={self.version}"
        if self.kind == "npm":
            return f"{self.name}@{self.version}"
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"


def packages(view: Files) -> tuple[Package, ...]:
    """Everything installed in an image, sorted, each once."""
    return tuple(sorted({*debian(view), *_of_folders(view)}))


def debian(view: Files) -> Iterator[Package]:
    """What dpkg has installed."""
    os_release = view.read("/etc/os-release") or ""
    distro = (
        os_release_field(os_release, "ID"),
        os_release_field(os_release, "VERSION_CODENAME"),
    )
    for stanza in (view.read(_DPKG_STATUS) or "").split("\n\n"):
        fields = _fields(stanza)
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version = fields.get("Package", ""), fields.get("Version", "")
        if _is_good(name, version):
            architecture = re.sub(r"[^\w-]", "", fields.get("Architecture", ""))
            licence = _debian_licence(view, name)
            yield Package("deb", name, version, architecture, licence, distro=distro)


def _fields(stanza: str) -> dict[str, str]:
    """The one-line fields of a deb822 stanza."""
    lines = (line.partition(":") for line in stanza.splitlines() if line[:1].strip())
    return {name: value.strip() for name, colon, value in lines if colon}


def _debian_licence(view: Files, name: str) -> str:
    """The short names in a machine-readable copyright file (DEP 5); empty for any other."""
    text = view.read(f"/usr/share/doc/{name}/copyright") or ""
    if not text.startswith("Format:"):
        return ""
    return " and ".join(sorted(set(_LICENCE_FIELD.findall(text))))


def _of_folders(view: Files) -> Iterator[Package]:
    for here, names in view.folders():
        if here == _DEBIANS_PYTHON:
            names.clear()
        elif here.rpartition("/")[2] == "node_modules":
            scoped = [f"{n}/{m}" for n in names if n[0] == "@" for m in view.names(f"{here}/{n}")]
            for name in (*names, *scoped):
                yield from node(view, f"{here}/{name}/package.json")
        for name in names:
            if name.endswith(".dist-info"):
                yield from python(view, f"{here}/{name}")


def python(view: Files, folder: str) -> Iterator[Package]:
    """What a ``*.dist-info`` folder says."""
    headers = HeaderParser().parsestr(view.read(f"{folder}/METADATA") or "")
    name, version = str(headers["Name"] or ""), str(headers["Version"] or "")
    if not _is_good(name, version):
        return
    classes = [str(value) for value in headers.get_all("Classifier", ())]
    licence = str(headers["License-Expression"] or headers["License"] or "").strip()
    if not licence or "\n" in licence or len(licence) > _LONGEST_LICENCE:
        approved = [one[len(_LICENCE_CLASS) :] for one in classes if _LICENCE_CLASS in one]
        licence = " and ".join(approved)
    origin = _json(view.read(f"{folder}/direct_url.json"))
    url = origin.get("url")
    is_elsewhere = isinstance(url, str) and url.startswith(("https://", "http://"))
    yield Package("pypi", name, version, licence=licence, url=str(url) if is_elsewhere else "")


def node(view: Files, path: str) -> Iterator[Package]:
    """What a ``package.json`` says."""
    found = _json(view.read(path))
    name, version, licence = (found.get(key) for key in ("name", "version", "license"))
    if isinstance(name, str) and isinstance(version, str) and _is_good(name, version):
        yield Package("npm", name, version, licence=licence if isinstance(licence, str) else "")


def _json(text: str | None) -> dict[str, object]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_good(name: str, version: str) -> bool:
    return bool(_NAME.fullmatch(name) and _VERSION.fullmatch(version))
