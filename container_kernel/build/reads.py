"""Reads: the files of the host that a step reads, named by content."""

from __future__ import annotations

import os
from pathlib import Path

from ..oci.digest import Digest
from ..runtime import attach
from ..runtime.attach import Around
from .inputs import Folder
from .step import Copy, Made, Packages, Shell


def inputs(step: Made, directory: Path, home: Path, store: Path) -> dict[str, str]:
    """What the step reads of the notebook's folder ``directory``, and of what it mounts.

    Volumes are as caches are: no part of what a step means.

    Raises:
        InputNotFound: it is not there.
    """
    if isinstance(step, Shell):
        around = Around(directory, home, store)
        paths = [wish for wish in step.mounts if wish.kind == "path"]
        return {f"mount {wish.target}": _digest(wish.source, around) for wish in paths}
    folder = Folder.of_notebook(directory)
    try:
        if isinstance(step, Packages):
            return {name: str(Digest.of(folder.read(name))) for name in step.files}
        if isinstance(step, Copy):
            for source in step.sources:
                folder.check(source)
            return {"content": str(folder.digest(step.sources))}
        return {}
    finally:
        folder.close()


def _digest(source: str, around: Around) -> str:
    fd = attach.open_source(source, around)
    try:
        real = os.readlink(f"/proc/self/fd/{fd}")
        folder = Folder(Path(os.path.dirname(real)), "the folder mounted")
        try:
            return str(folder.digest((os.path.basename(real),)))
        finally:
            folder.close()
    finally:
        os.close(fd)
