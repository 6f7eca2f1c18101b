"""Environments compared: what files, packages and settings one has and another has not."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from typing import Any, TypeVar

from .. import syscalls
from ..errors import CellError
from ..oci.contrast import Change, Seen, Touched, contrast
from ..oci.idmap import IdMap
from ..oci.image_config import ImageConfig
from ..record import record
from ..runtime.host import Host
from ..runtime.live import Live
from ..runtime.scratch import NOT_FROZEN
from ..runtime.view import Files, View
from ..store.store import Store
from .events import Image
from .installed import packages

_Name = TypeVar("_Name")
_MOST_BYTES = 1 << 20
_OF_PACKAGES = ("/var/lib/dpkg", ".dist-info", "/node_modules")


@record
class Side:
    """One of two environments: an image, or a live container on it with what was written there."""

    title: str
    image: Image
    live: Live | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "title": self.title,
            "digest": str(self.image.digest),
            "scratch": self.live is not None,
        }


@record
class Comparison:
    """What is not the same. Packages and settings are by name, with both values; None is none."""

    before: Side
    after: Side
    files: Sequence[Change]
    packages: Mapping[tuple[str, str], tuple[str | None, str | None]]
    settings: Mapping[str, tuple[str | None, str | None]]

    @property
    def is_same(self) -> bool:
        """Nothing differs."""
        return not (self.files or self.packages or self.settings)

    def to_json(self) -> dict[str, Any]:
        """As ``image diff --json`` prints it."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "packages": [
                {"kind": kind, "name": name, "before": old, "after": new}
                for (kind, name), (old, new) in self.packages.items()
            ],
            "settings": [
                {"name": name, "before": old, "after": new}
                for name, (old, new) in self.settings.items()
            ],
            "files": [
                {
                    "path": change.path,
                    "change": change.kind,
                    "before": _seen(change.before),
                    "after": _seen(change.after),
                }
                for change in self.files
            ],
        }


def _seen(seen: Seen | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    return {
        "kind": seen.kind,
        "size": seen.size_bytes,
        "mode": f"{seen.mode:04o}",
        "owner": seen.owner,
        "link": seen.link,
        "files": seen.files,
    }


class Environments:
    """Compares environments of one store."""

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store

    def compare(self, before: Side, after: Side) -> Comparison:
        """What must change in ``before`` to have ``after``."""
        touched = self._touched(before, after)
        with ExitStack() as stack:
            old, new = (self._files(side, stack) for side in (before, after))
            files = contrast(old.fd, new.fd, touched, (self._idmap(before), self._idmap(after)))
            found: dict[tuple[str, str], tuple[str | None, str | None]] = {}
            if any(word in change.path for change in files for word in _OF_PACKAGES):
                found = _paired(_packages(old), _packages(new))
        return Comparison(
            before,
            after,
            files,
            found,
            _paired(dict(_settings(before.image.config)), dict(_settings(after.image.config))),
        )

    def lines(self, before: Side, after: Side, path: str) -> list[str]:
        """How a text file differs, as a unified diff; nothing when it does not.

        Raises:
            CellError: neither has it, or it is no text.
        """
        with ExitStack() as stack:
            contents = [_content(self._files(side, stack), path) for side in (before, after)]
        if contents == [None, None]:
            raise CellError(f"{path} is in neither of the two", hint="write it as %diff lists it")
        old, new = (_text(content, path) for content in contents)
        names = [
            side.title if content is not None else "(not there)"
            for side, content in zip((before, after), contents, strict=True)
        ]
        return list(difflib.unified_diff(old, new, names[0], names[1], lineterm=""))

    def _files(self, side: Side, stack: ExitStack) -> Files:
        if side.live is not None:
            return Files(side.live.rootfs.fd)
        return stack.enter_context(View(self._host, self._store, side.image.chain_id))

    def _idmap(self, side: Side) -> IdMap:
        return side.live.rootfs.idmap if side.live is not None else self._store.idmap

    def _touched(self, before: Side, after: Side) -> Touched:
        """The names in the layers that not both have, and in what was written on top of them."""
        chains = [self._store.snapshots.chain(side.image.chain_id) for side in (before, after)]
        pairs = takewhile(
            lambda pair: pair[0].chain_id == pair[1].chain_id, zip(*chains, strict=False)
        )
        common = len(list(pairs))
        touched = Touched()
        for chain in chains:
            for layer in chain[common:]:
                touched.add(layer.path, userxattr=self._store.userxattr)
        for live in (side.live for side in (before, after) if side.live is not None):
            points = [wish.target for wish in live.attached.wishes]
            left_out = [*(f"/{path}" for path in NOT_FROZEN), *points]
            upper = live.rootfs.active.upper
            touched.add(upper, userxattr=self._store.userxattr, without=left_out)
        return touched


def _packages(files: Files) -> dict[tuple[str, str], str]:
    return {(one.kind, one.plain_name): one.version for one in packages(files)}


def _settings(config: ImageConfig) -> Iterator[tuple[str, str]]:
    for variable in config.env:
        name, _, value = variable.partition("=")
        yield f"env {name}", value
    for name, value in sorted(config.labels.items()):
        yield f"label {name}", value
    for name, words in (("entrypoint", config.entrypoint), ("cmd", config.cmd)):
        if words is not None:
            yield name, " ".join(words)
    for name, value in (("workdir", config.workdir), ("user", config.user)):
        if value:
            yield name, value


def _paired(
    before: dict[_Name, str], after: dict[_Name, str]
) -> dict[_Name, tuple[str | None, str | None]]:
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def _content(files: Files, path: str) -> bytes | None:
    """A plain file's bytes, up to one more than are shown; links lead nowhere out."""
    try:
        fd = syscalls.open_in_root(files.fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CellError(f"{path} is no file")
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(_MOST_BYTES + 1)
    finally:
        os.close(fd)


def _text(content: bytes | None, path: str) -> list[str]:
    if content is None:
        return []
    if len(content) > _MOST_BYTES or b"\0" in content:
        raise CellError(f"{path} is no text, or more than a megabyte of it")
    return content.decode(errors="replace").splitlines()
