"""Graph: what a step depends on, as one cache key.

A key is the name of the file system below, the step's meaning, and the content of its declared
inputs; never a time, never a tag. Two steps with one key make the same layer. The parts that a key
is made of are kept beside it, so that `why` can say which of them changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from ..record import field, record
from .step import MEANING, Copy, Download, Packages, Shell

Parts = dict[str, Any]
"""What a key is made of, by name; values are JSON."""


@record(kw_only=True)
class Inputs:
    """What a step reads from outside, as it was when its key was made.

    ``named`` is its content, ``inodes`` what is mounted, by target: device and number. ``since_ns``
    is when the first of it was looked at (time_ns).
    """

    named: Mapping[str, str] = field(default_factory=dict)
    inodes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    since_ns: int = 0


def key_parts(
    step: Shell | Packages | Copy | Download,
    parent: Digest,
    config: ImageConfig,
    inputs: Mapping[str, str],
    epoch: int,
) -> Parts:
    """All that decides which layer ``step`` makes on top of ``parent``.

    ``inputs`` names content the step reads: a file's digest, another stage's chain ID.
    """
    kind, meaning = _meaning(step, config)
    return {
        "parent": str(parent),
        "kind": kind,
        "version": MEANING[kind],
        **meaning,
        "inputs": dict(inputs),
        "platform": os.uname().machine,
        "epoch": epoch,
    }


def key_of(parts: Parts) -> str:
    """64 hexadecimal digits that name the layer made of ``parts``."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def definition_key(definition: Mapping[str, object]) -> str:
    """The key of a base made from a definition in ``images/``."""
    version, machine = MEANING["definition"], os.uname().machine
    return key_of({"kind": "definition", "version": version, "platform": machine, **definition})


def _net(text: str | None) -> str:
    """What a step may reach, not how: a layer made with pasta is the one made on the host's."""
    return "host" if text in (None, "pasta") else text


def _asked(step: Shell) -> Parts:
    """What else is asked for, by name; nothing where nothing is, so that older keys hold."""
    asked: Parts = {
        "mounts": [wish.text for wish in step.mounts],
        "secrets": list(step.secrets),
        "devices": list(step.devices),
        "ssh": step.ssh,
    }
    return {name: value for name, value in asked.items() if value}


def _meaning(step: Shell | Packages | Copy | Download, config: ImageConfig) -> tuple[str, Parts]:
    env = sorted(config.env)
    if isinstance(step, Shell):
        own = {"body": step.body, "net": _net(step.net), "cache": list(step.cache), "env": env}
        return "build", {**own, "workdir": config.workdir, "user": config.user, **_asked(step)}
    if isinstance(step, Packages):
        # As a set: the order in which packages are named decides nothing.
        names = sorted(set(step.names))
        return step.manager, {"packages": names, "options": list(step.options), "env": env}
    if isinstance(step, Copy):
        target = {"destination": step.destination, "workdir": config.workdir}
        return "copy", {"sources": len(step.sources), **target}
    return "download", {
        "digest": step.digest,
        "destination": step.destination,
        "file": step.url.rpartition("/")[2],
        "workdir": config.workdir,
    }
