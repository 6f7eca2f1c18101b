"""Lock: what a notebook's images are made of, exactly, as a file beside it.

``NAME.lock.json`` names for each stage its base, and for each step its key, the packages and files
it took, and the layer it made. It is made for diffs and merges: a fixed order, one input per line.
With ``--locked`` a build takes what the lock names and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import LockBroken
from ..oci.digest import Digest
from ..record import record
from .journal import kept_as
from .resolved import Input

VERSION = 1
_ANEW = "take back the file as it was, or write it anew: container-kernel lock NOTEBOOK"
KEY = "container_kernel"
"""Where a notebook's metadata holds an embedded lock, as ``lock``."""


@record
class LockedStep:
    """One step of a stage: ``key`` says which, ``inputs`` what it took, ``diff_id`` what came."""

    title: str
    kind: str
    meaning: int
    key: str
    diff_id: Digest
    size: int
    inputs: tuple[Input, ...]


@record
class LockedStage:
    """A stage's base, as the chain ID of its layers, its steps, and its image.

    ``base_inputs`` are the packages of a base that is made from its definition.
    """

    base: str
    base_digest: Digest
    steps: tuple[LockedStep, ...]
    image: Digest
    base_inputs: tuple[Input, ...] = ()


@record
class Lock:
    """All stages of one notebook, on one platform, as made by one version of this package."""

    stages: Mapping[str, LockedStage]
    platform: str
    tool: str

    def to_json(self) -> dict[str, Any]:
        """As plain data, in the order of the file."""
        return {
            "version": VERSION,
            "tool": self.tool,
            "platform": self.platform,
            "stages": {name: _stage_data(stage) for name, stage in self.stages.items()},
        }

    def to_text(self) -> str:
        """The file: every input is a line of its own."""
        return "".join(_lines(self.to_json())) + "\n"

    @classmethod
    def from_json(cls, data: Any, where: str) -> Lock:
        """Read what `to_json` gave; ``where`` is what messages call it.

        Raises:
            LockBroken: it is of a newer version, or not what it must be.
        """
        if not isinstance(data, dict) or not isinstance(data.get("version"), int):
            raise LockBroken(f"{where} is not a lock: it has no version")
        if data["version"] > VERSION:
            raise LockBroken(
                f"{where} is a lock of version {data['version']}, this program knows {VERSION}",
                hint="upgrade container-kernel",
            )
        try:
            stages = {name: _stage(stage) for name, stage in data["stages"].items()}
            return cls(stages, str(data["platform"]), str(data["tool"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise LockBroken(f"{where} is damaged: {what}", hint=_ANEW) from error


def path_of(notebook: Path) -> Path:
    """Where the lock of ``notebook`` lies."""
    return notebook.with_suffix(".lock.json")


def read(notebook: Path) -> Lock | None:
    """The lock beside ``notebook``, else the one in its metadata; None when there is neither.

    Raises:
        LockBroken: it cannot be used.
    """
    path = path_of(notebook)
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"), path.name)
    except FileNotFoundError:
        pass
    except OSError as error:
        why = f"{path.name} cannot be read: {error.strerror}"
        raise LockBroken(
            why, hint="put the lock's file there, readable, or lock it anew"
        ) from error
    embedded = json.loads(notebook.read_text(encoding="utf-8")).get("metadata", {}).get(KEY, {})
    if "lock" in embedded:
        return Lock.from_json(embedded["lock"], f"the lock in {notebook.name}")
    return None


def packages(held: Lock) -> set[str]:
    """The digests, in hexadecimal, of the packages it names that stores keep by digest."""
    found: set[str] = set()
    for stage in held.stages.values():
        inputs = chain(stage.base_inputs, *(step.inputs for step in stage.steps))
        found.update(name for one in inputs if (name := kept_as(one)))
    return found


def parse(text: str, where: str) -> Lock:
    """The lock written in ``text``.

    Raises:
        LockBroken: it is cut off, holds a merge that was not finished, or is no lock.
    """
    for mark in ("<<<<<<<", ">>>>>>>"):
        if f"\n{mark}" in f"\n{text}":
            raise LockBroken(
                f"{where} holds a merge that was not finished (a line begins with {mark})",
                hint="take either side whole, or write it anew: container-kernel lock",
            )
    try:
        data = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Unterminated") or not text[error.pos :].strip():
            what = f"ends in the middle, in line {error.lineno}" if text.strip() else "is empty"
            raise LockBroken(f"{where} {what}", hint=_ANEW) from error
        raise LockBroken(f"{where} cannot be read: {error}", hint=_ANEW) from error
    except ValueError as error:
        raise LockBroken(f"{where} cannot be read: {error}", hint=_ANEW) from error
    return Lock.from_json(data, where)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _stage_data(stage: LockedStage) -> dict[str, Any]:
    return {
        "base": stage.base,
        "base_digest": str(stage.base_digest),
        **({"base_inputs": _sorted(stage.base_inputs)} if stage.base_inputs else {}),
        "steps": [
            {
                "step": step.title,
                "kind": step.kind,
                "meaning": step.meaning,
                "key": step.key,
                "inputs": _sorted(step.inputs),
                "diff_id": str(step.diff_id),
                "size": step.size,
            }
            for step in stage.steps
        ],
        "image": str(stage.image),
    }


def _sorted(inputs: Sequence[Input]) -> list[Input]:
    return [dict(sorted(one.items())) for one in inputs]


def _stage(data: Mapping[str, Any]) -> LockedStage:
    steps = tuple(
        LockedStep(
            str(step["step"]),
            str(step["kind"]),
            int(step["meaning"]),
            str(step["key"]),
            Digest(step["diff_id"]),
            int(step["size"]),
            tuple(map(checked, step["inputs"])),
        )
        for step in data["steps"]
    )
    return LockedStage(
        str(data["base"]),
        Digest(data["base_digest"]),
        steps,
        Digest(data["image"]),
        tuple(map(checked, data.get("base_inputs", ()))),
    )


_WORD = re.compile(r"[A-Za-z0-9][\w.+~:%!-]*")
_URL = re.compile(r"\S+")
_NPM = r"(?:@[\w~-][\w.~-]*/)?[\w~-][\w.~-]*"
_NPM_NAME = re.compile(_NPM)
_NPM_PATH = re.compile(rf"{_NPM}(?:/node_modules/{_NPM})*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INTEGRITY = re.compile(r"[\w+/= -]+")
_NEEDED: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    "deb": dict.fromkeys(("name", "version", "architecture", "file"), _WORD) | {"digest": _DIGEST},
    "python": {"name": _WORD, "version": _WORD, "digest": _DIGEST, "url": _URL},
    "npm": {
        "name": _NPM_NAME,
        "version": _WORD,
        "digest": _INTEGRITY,
        "path": _NPM_PATH,
        "url": _URL,
    },
    "file": {"url": _URL, "digest": _DIGEST},
}
_MAY_LACK = {
    *(("python", "url"), ("python", "digest")),
    *(("npm", "url"), ("npm", "digest"), ("npm", "path")),
}


def checked(one: Input) -> Input:
    """An input whose words can be given to a package manager, or be a file's name, as they are.

    Raises:
        ValueError: it is none.
    """
    kind = one["kind"]
    if kind not in _NEEDED:
        raise ValueError(f"an input is of the unknown kind {kind!r}")
    for name, pattern in _NEEDED[kind].items():
        value = one.get(name)
        if value is None and (kind, name) in _MAY_LACK:
            continue
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"the {name} of {one.get('name') or kind} is {value!r}")
    if kind == "deb" and not isinstance(one.get("size"), int):
        raise ValueError(f"the size of {one['name']} is {one.get('size')!r}")
    return dict(one)


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """JSON with one line for each thing that has no parts of its own."""
    if not isinstance(value, dict | list) or not value or _is_flat(value):
        yield json.dumps(value, ensure_ascii=False)
        return
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    yield f"{opening}\n"
    parts: Sequence[Any] = list(value.items()) if isinstance(value, dict) else value
    for number, part in enumerate(parts):
        yield f"{indent} "
        if isinstance(value, dict):
            yield f"{json.dumps(part[0], ensure_ascii=False)}: "
            part = part[1]
        yield from _lines(part, f"{indent} ")
        yield ",\n" if number < len(parts) - 1 else "\n"
    yield f"{indent}{closing}"


def _is_flat(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "kind" in value
        and not any(isinstance(part, dict | list) for part in value.values())
    )
