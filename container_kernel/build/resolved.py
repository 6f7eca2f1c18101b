"""Resolved: the packages and files that a step really took, by name, version and digest.

Steps of package managers leave notes in a folder (see `package_scripts`); this reads them, and
writes those a locked step finds there. An input is a plain mapping, as the lock file has it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .step import Download, Packages, Step

Input = dict[str, Any]
"""``kind``, ``name``, ``version``, ``digest`` and what else that kind has."""
_MOST_BYTES = 64 * 1024**2


def of_step(step: Step, told: Path | None) -> list[Input]:
    """What ``step`` took; ``told`` is where its command wrote that, if it has one. Others than the
    command can have written there too: what is read is to be checked (`lock.checked`).

    Raises:
        ValueError: it makes no sense.
    """
    if isinstance(step, Download):
        return [{"kind": "file", "url": step.url, "digest": step.digest}]
    if isinstance(step, Packages) and told is not None:
        found = _READERS[step.manager](told)
        return sorted(found, key=lambda one: (one["name"], one["version"], str(one.get("path"))))
    return []


def write(step: Packages, inputs: Sequence[Input], told: Path) -> None:
    """Tell a locked step's command what to install."""
    if step.manager == "apt":
        lines = [f"{one['file']} {one['size']} {_hex(one)}" for one in inputs]
        (told / "wanted").write_text("".join(f"{line}\n" for line in lines))
    elif step.manager == "pip":
        tools = [one for one in inputs if one.get("tool")]
        packages = [one for one in inputs if not one.get("tool")]
        names = [one["name"] for one in tools]
        # Two versions of a tool, for two packages, cannot both be said to be the one.
        alone = [one for one in tools if names.count(one["name"]) == 1]
        _write_requirements(told / "requirements.txt", packages)
        _write_requirements(told / "constraints.txt", alone)
    else:
        (told / "npm.json").write_text(json.dumps(inputs))


def _write_requirements(path: Path, inputs: Sequence[Input]) -> None:
    path.write_text("".join(f"{_requirement(one)}\n" for one in inputs))


def _requirement(one: Input) -> str:
    if one.get("url"):
        return f"{one['name']} @ {one['url']}"
    digest = f" --hash={one['digest']}" if one.get("digest") else ""
    return f"{one['name']}=={one['version']}{digest}"


def _hex(one: Input) -> str:
    return str(one["digest"]).removeprefix("sha256:")


def drift(before: Sequence[Input], after: Sequence[Input]) -> str:
    """In words, which versions ``after`` has in place of those in ``before``; empty for none."""
    old: dict[str, set[str]] = {}
    new: dict[str, set[str]] = {}
    for found, inputs in ((old, before), (new, after)):
        for one in inputs:
            found.setdefault(str(one.get("name") or one.get("url")), set()).add(_version(one))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            shown = (" and ".join(sorted(some.get(name, ()))) or "nothing" for some in (old, new))
            lines.append(f"{name} {' → '.join(shown)}")
    return ", ".join(lines)


def _version(one: Input) -> str:
    return str(one.get("version") or one.get("digest"))


# ---------------------------------------------------------------- what each tool wrote


def _apt(told: Path) -> Iterator[Input]:
    for line in text(told, "wanted").splitlines():
        file, size, digest = line.split()
        name, version, architecture = file.removesuffix(".deb").rsplit("_", 2)
        yield {
            "kind": "deb",
            "name": name,
            "version": version.replace("%3a", ":"),
            "architecture": architecture,
            "file": file,
            "size": int(size),
            "digest": f"sha256:{digest}",
        }


def _pip(told: Path) -> Iterator[Input]:
    import tomllib

    tags = {}
    for line in text(told, "installed").splitlines():
        wheel, *its = line.split()
        name, _, version = wheel.rpartition("-")
        tags[_normal(name), version] = {one for tag in its for one in _expanded(tag)}
    for package in tomllib.loads(text(told, "pylock.toml")).get("packages", ()):
        name, version = _normal(package["name"]), str(package.get("version", ""))
        yield _python(package, tags.get((name, version), set()))
    for found in told.glob("tool*.tags"):
        of_tool = {one for tag in text(told, found.name).split() for one in _expanded(tag)}
        for package in tomllib.loads(text(told, f"pylock.{found.stem}.toml"))["packages"]:
            yield {**_python(package, of_tool), "tool": True}


def tools_told(told: Path) -> list[Input]:
    """The tools that a step of ``%pip`` built packages with, by name and version."""
    pairs = (line.partition("==")[::2] for line in text(told, "tools").splitlines())
    return [{"name": _normal(name), "version": version} for name, version in pairs]


def _python(package: Input, tags: set[str]) -> Input:
    name, version = _normal(package["name"]), str(package.get("version", ""))
    return {"kind": "python", "name": name, "version": version} | _chosen(package, tags)


def _chosen(package: Input, tags: set[str]) -> Input:
    """The file of ``package`` that was installed: the wheel of these tags, else the source."""
    for wheel in package.get("wheels", ()):
        file = wheel.get("name") or wheel["url"].rpartition("/")[2].partition("#")[0]
        if tags and set(_expanded("-".join(file.removesuffix(".whl").split("-")[-3:]))) == tags:
            return {"file": file, "digest": f"sha256:{wheel['hashes']['sha256']}"}
    if "sdist" in package:
        source = package["sdist"]
        file = source.get("name") or source["url"].rpartition("/")[2]
        return {"file": file, "digest": f"sha256:{source['hashes']['sha256']}"}
    where = package.get("vcs") or package.get("archive") or package.get("directory") or {}
    url = where.get("url") or where.get("path") or ""
    if package.get("vcs"):
        url = f"git+{url}@{where['commit-id']}"
    found = {"url": url} if url else {}
    hashes = where.get("hashes", {})
    return {**found, "digest": f"sha256:{hashes['sha256']}" if "sha256" in hashes else None}


def _expanded(tag: str) -> Iterator[str]:
    """``py2.py3-none-any`` is a tag of each Python it names."""
    parts = tag.split("-")
    if len(parts) != 3:
        return
    for python in parts[0].split("."):
        for abi in parts[1].split("."):
            for platform in parts[2].split("."):
                yield f"{python}-{abi}-{platform}"


def _npm(told: Path) -> Iterator[Input]:
    for one in json.loads(text(told, "npm.json") or "[]"):
        yield {**one, "kind": "npm"}


_READERS = {"apt": _apt, "pip": _pip, "npm": _npm}


def _normal(name: str) -> str:
    """A Python package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def text(told: Path, name: str) -> str:
    """A file that a step has written there, or nothing.

    Raises:
        ValueError: it is no file (no link of a step's is followed), or larger than any should be.
    """
    try:
        fd = os.open(told / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ValueError(f"{name} is no file: {error.strerror}") from error
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size > _MOST_BYTES:
        os.close(fd)
        raise ValueError(f"{name} is no file of less than {_MOST_BYTES >> 20} MiB")
    with os.fdopen(fd, "rb") as file:
        return file.read(_MOST_BYTES).decode()
