"""Graph: what a step depends on, as one cache key.

A key is the name of the file system below, the step's meaning, and the content of its declared
inputs; never a time, never a tag. Two steps with one key make the same layer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from .step import MEANING, Copy, Download, Packages, Shell


def cache_key(
    step: Shell | Packages | Copy | Download,
    parent: Digest,
    config: ImageConfig,
    inputs: Mapping[str, str],
    epoch: int,
) -> str:
    """64 hexadecimal digits that name the layer ``step`` makes on top of ``parent``.

    ``inputs`` names content the step reads: a file's digest, another stage's chain ID.
    """
    kind, meaning = _meaning(step, config)
    parts = {
        "parent": str(parent),
        "kind": kind,
        "version": MEANING[kind],
        "meaning": meaning,
        "inputs": dict(inputs),
        "platform": os.uname().machine,
        "epoch": epoch,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def definition_key(definition: Mapping[str, object]) -> str:
    """The key of a base made from a definition in ``images/``."""
    parts = {"kind": "definition", "version": 1, "platform": os.uname().machine, **definition}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _net(text: str | None) -> str:
    """What a step may reach, not how: a layer made with pasta is the one made on the host's."""
    return "host" if text in (None, "pasta") else text


def _asked(step: Shell) -> list[object]:
    """What else is asked for, by name; nothing where nothing is, so that older keys hold."""
    asked = {
        "mounts": [wish.text for wish in step.mounts],
        "secrets": list(step.secrets),
        "devices": list(step.devices),
        "ssh": step.ssh,
    }
    given = {name: value for name, value in asked.items() if value}
    return [given] if given else []


def _meaning(
    step: Shell | Packages | Copy | Download, config: ImageConfig
) -> tuple[str, list[object]]:
    around: list[object] = [sorted(config.env), config.workdir, config.user]
    if isinstance(step, Shell):
        return "build", [step.body, _net(step.net), list(step.cache), *around, *_asked(step)]
    if isinstance(step, Packages):
        # As a set: the order in which packages are named decides nothing.
        return step.manager, [sorted(set(step.names)), list(step.options), sorted(config.env)]
    if isinstance(step, Copy):
        return "copy", [len(step.sources), step.destination, config.workdir]
    return "download", [step.digest, step.destination, step.url.rpartition("/")[2], config.workdir]
