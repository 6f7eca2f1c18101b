"""Volatile: files that tools leave behind and that differ from run to run.

They are removed from the upper directory before it is frozen: not from the image. What lay below
shows again. Times are not handled here but where the tar is made (`oci.changeset.Clamp`), those
inside byte-code too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from ..folders import walk
from ..record import record


@record
class Rule:
    """What is not part of a layer, and why. A last part ``**`` is every file below a folder."""

    name: str
    reason: str
    paths: tuple[str, ...]


RULES = (
    Rule(
        "package logs",
        "package managers note when they ran",
        (
            "/var/log/apt/history.log",
            "/var/log/apt/term.log",
            "/var/log/apt/eipp.log.xz",
            "/var/log/dpkg.log",
            "/var/log/alternatives.log",
            "/var/log/bootstrap.log",
            "/root/.npm/_logs/**",
        ),
    ),
    Rule(
        "package backups",
        "what package managers keep of the run before, which an image never goes back to",
        (
            "/var/cache/debconf/*-old",
            "/var/lib/dpkg/*-old",
            "/var/lib/apt/extended_states-old",
        ),
    ),
    Rule(
        "package locks",
        "locks of processes that are gone",
        (
            "/var/lib/dpkg/lock",
            "/var/lib/dpkg/lock-frontend",
            "/var/lib/dpkg/triggers/Lock",
            "/var/lib/apt/lists/lock",
            "/var/cache/apt/archives/lock",
        ),
    ),
    Rule(
        "installer's answers",
        "empty outside an installer, and unreadable",
        ("/var/cache/debconf/passwords.dat",),
    ),
    Rule(
        "apt lists",
        "what the package mirror had that day; apt-get update fetches it again",
        (
            "/var/lib/apt/lists/**",
            "/var/cache/apt/pkgcache.bin",
            "/var/cache/apt/srcpkgcache.bin",
        ),
    ),
    Rule(
        "ldconfig cache",
        "holds inode numbers and times; ldconfig makes it again",
        ("/var/cache/ldconfig/aux-cache",),
    ),
    Rule(
        "font caches",
        "hold the times of folders before they were frozen, so nobody would believe them",
        ("/var/cache/fontconfig/*.cache-*", "/root/.cache/fontconfig/*.cache-*"),
    ),
    Rule(
        "Node's compile cache",
        "holds what V8 made of a script, in other bytes each time; Node makes it again",
        ("/tmp/node-compile-cache/**",),
    ),
    Rule(
        "catalogue of the journal",
        "holds the time it was made",
        ("/var/lib/systemd/catalog/database",),
    ),
    Rule(
        "index of manuals",
        "a database in the order its writer met the pages; mandb makes it again",
        ("/var/cache/man/**",),
    ),
    Rule(
        "names of the machine",
        "every start of a container makes its own",
        (
            "/etc/hosts",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/machine-id",
            "/var/lib/dbus/machine-id",
        ),
    ),
    Rule(
        "random seeds",
        "one seed for all copies of an image is none",
        ("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/root/.rnd"),
    ),
)


def drop(upper: Path) -> None:
    """Remove what `RULES` names from ``upper``; links are not followed out of it."""
    touched = set(os.listdir(upper))
    for rule in RULES:
        for path in rule.paths:
            if path.split("/", 2)[1] in touched:
                for target in _found(upper, path):
                    target.unlink()


def rule_of(path: str) -> Rule | None:
    """The rule that ``path`` of an image falls under."""
    return next((rule for rule in RULES for one in rule.paths if _matches(path, one)), None)


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        return path.startswith(pattern[:-2])
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


def _found(upper: Path, path: str) -> Iterator[Path]:
    """The plain files that ``path`` names."""
    folder, _, name = path.rpartition("/")
    if not _is_plain_folder(upper, folder):
        return
    where = upper / folder.lstrip("/")
    if name == "**":
        for here, _, names in walk(where):
            yield from filter(_is_plain_file, (Path(here, one) for one in names))
    elif "*" in name:
        names = [one for one in os.listdir(where) if fnmatchcase(one, name)]
        yield from filter(_is_plain_file, (where / one for one in names))
    elif _is_plain_file(where / name):
        yield where / name


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_plain_folder(upper: Path, folder: str) -> bool:
    here = upper
    for part in folder.strip("/").split("/"):
        here = here / part
        if here.is_symlink() or not here.is_dir():
            return False
    return True
