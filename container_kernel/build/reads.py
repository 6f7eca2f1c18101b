"""Reads: the files of the host that a step reads, named by content."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..oci.digest import Digest
from ..runtime import attach
from ..runtime.attach import Around
from .graph import Inputs
from .inputs import Folder
from .step import Copy, Made, Packages, Shell


def inputs(step: Made, directory: Path, home: Path, store: Path) -> Inputs:
    """What the step reads of the notebook's folder ``directory``, and of what it mounts.

    Volumes are as caches are: no part of what a step means.

    Raises:
        InputNotFound: it is not there.
    """
    if isinstance(step, Shell):
        return _mounted(step, Around(directory, home, store))
    folder = Folder.of_notebook(directory)
    try:
        if isinstance(step, Packages):
            return Inputs(named={name: str(Digest.of(folder.read(name))) for name in step.files})
        if isinstance(step, Copy):
            for source in step.sources:
                folder.check(source)
            return Inputs(named={"content": str(folder.digest(step.sources))})
        return Inputs()
    finally:
        folder.close()


def _mounted(step: Shell, around: Around) -> Inputs:
    since_ns = time.time_ns()
    named, inodes = {}, {}
    for wish in step.mounts:
        if wish.kind == "path":
            digest, inodes[wish.target] = _named(wish.source, around)
            named[f"mount {wish.target}"] = digest
    return Inputs(named=named, inodes=inodes, since_ns=since_ns)


def _named(source: str, around: Around) -> tuple[str, tuple[int, int]]:
    fd = attach.open_source(source, around)
    try:
        info = os.fstat(fd)
        real = os.readlink(f"/proc/self/fd/{fd}")
        folder = Folder(Path(os.path.dirname(real)), "the folder mounted")
        try:
            digest = str(folder.digest((os.path.basename(real),)))
        finally:
            folder.close()
        return digest, (info.st_dev, info.st_ino)
    finally:
        os.close(fd)
