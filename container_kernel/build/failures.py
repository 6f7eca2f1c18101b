"""Failures: what a step that failed has written, to be looked at.

What is frozen comes from a clean parent always. So the half-built tree stays as the command left
it: whoever looks has it below a scratch of their own, nothing is ever built upon it, and running
the step again begins where the step began.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CellError, ImageError
from ..oci.spec import ImageConfig
from ..record import record
from .events import Image, Layer

if TYPE_CHECKING:
    from ..store.kept import Tree
    from ..store.snapshots import Active
    from ..store.store import Store
    from .events import About

_STEP, _TITLE, _NOTEBOOK, _CONFIG = "step", "title", "notebook", "config"


@record
class Failure:
    """The step that failed last, and the file system it left, as an image to run things on."""

    title: str
    image: Image
    upper: Path

    @property
    def workdir(self) -> str:
        """Where the step ran."""
        return self.image.config.workdir or "/"

    def newest(self, most: int) -> list[str]:
        """The files it wrote last, the last one first, at most so many."""
        files = sorted(_files(self.upper), reverse=True)
        return [f"/{os.path.relpath(path, self.upper)}" for _, path in files[:most]]


def keep(
    store: Store, about: About, config: ImageConfig, notebook: Path | None, active: Active
) -> bool:
    """Keep what a failed step has written, in place of what was kept before; False if it cannot."""
    said = {
        _STEP: about.step_id,
        _TITLE: about.title,
        _NOTEBOOK: str(notebook) if notebook else None,
        _CONFIG: config.to_json().decode(),
    }
    return store.kept.keep(active, said)


def settle(store: Store, step_id: str) -> None:
    """The step is built now: what it left when it failed may go."""
    tree = store.kept.tree
    if tree is not None and tree.about[_STEP] == step_id:
        store.kept.let_go()


def last(store: Store) -> Failure:
    """The step of this process that failed last.

    Raises:
        CellError: none has, or what it left is gone.
    """
    if store.kept.tree is None:
        raise CellError(
            "there is no failed step to look at",
            hint="what a failed step has written is kept until it is built, another one fails, "
            "%discard, or the kernel ends; and only if as much of the disk stays free",
        )
    return _failure(store.kept.tree)


def of_notebook(store: Store, notebook: Path) -> Failure:
    """The step that failed last in a kernel of ``notebook`` that runs now.

    Raises:
        CellError: there is none.
    """
    wanted = str(notebook.resolve())
    tree = store.kept.borrow(lambda about: about.get(_NOTEBOOK) == wanted)
    if tree is None:
        raise CellError(
            f"no running kernel of {notebook.name} has a failed step",
            hint="what a failed step has written is kept while the kernel runs that built it; "
            "to see what is built: container-kernel shell --image ./NOTEBOOK",
        )
    return _failure(tree)


def _failure(tree: Tree) -> Failure:
    snapshot, title = tree.snapshot, str(tree.about[_TITLE])
    try:
        config = ImageConfig.from_json(str(tree.about[_CONFIG]).encode())
    except ImageError as error:
        raise CellError(f"what is kept of {title} cannot be read: {error}") from error
    layer = Layer(snapshot.diff_id, snapshot.chain_id, 0, title)
    # Its digests name nothing: there is no such image, and never will be.
    image = Image(snapshot.diff_id, snapshot.diff_id, config, (layer,))
    return Failure(title, image, tree.upper)


def _files(tree: Path) -> Iterator[tuple[float, str]]:
    for here, _, names, fd in os.fwalk(tree):
        for name in names:
            with suppress(FileNotFoundError):
                changed = os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime
                yield changed, os.path.join(here, name)
