"""Stack: the layers of one image, unpacked side by side and frozen in their order.

As many boxes are at work as there are cores, each with a memory limit of its own. A layer is frozen
after the one below it, so whatever ends this, what is frozen can be used.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..errors import ImageError
from ..oci.digest import Digest, extend_chain
from ..oci.spec import Descriptor
from ..record import record
from ..store.disk import disk_errors
from .box import Box
from .compression import NONE
from .unpack import check_layer

if TYPE_CHECKING:
    from ..store.snapshots import Active
    from ..store.store import Store

_MOST_BOXES = 4


@record
class Layer:
    """A layer to be: its blob, and what the image says of it."""

    number: int
    blob: Descriptor
    compression: str
    diff_id: Digest
    created_by: str


@record(frozen=False)
class _Pending:
    """A layer that is not frozen yet. Of one that was here before only the blob is looked at."""

    layer: Layer
    parent: Digest | None
    chain: Digest
    active: Active | None = None
    box: Box | None = None


class Stack:
    """Layers on their way into ``store``, base first; what is not finished in the end is dropped.

    Raises:
        ImageError: a layer is not what its image says; the message tells which.
        StoreError: the disk is full.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._top: Digest | None = None
        self._trees: list[Path] = []
        self._pending: deque[_Pending] = deque()
        self._most = min(len(os.sched_getaffinity(0)), _MOST_BOXES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pending in self._pending:
            self._drop(pending)

    def add(self, layer: Layer) -> None:
        """Begin with the next layer, whose blob is in the store, as soon as a core is free."""
        while len(busy := self._busy()) >= self._most:
            if not self._freeze_done():  # so the first is busy, and waits for nobody
                _done(busy, wait=True)
        parent, self._top = self._top, extend_chain(self._top, layer.diff_id)
        self._trees.append(Path())
        pending = _Pending(layer, parent, self._top)
        self._pending.append(pending)
        with _named(layer):
            self._begin(pending)
        if len(self._pending) == 1:
            self._let_first_inherit()

    def finish(self) -> None:
        """Wait for all layers; when this returns they are frozen."""
        while self._pending:
            self._freeze_first()

    def _begin(self, pending: _Pending) -> None:
        layer, snapshots = pending.layer, self._store.snapshots
        if layer.compression == NONE and layer.blob.digest != layer.diff_id:
            found = layer.blob.digest.short
            raise ImageError(f"it is {found}, the image config says {layer.diff_id.short}")
        known = snapshots.get(pending.chain)
        if known is not None:
            self._trees[layer.number - 1] = known.path
            if layer.compression != NONE:  # else its digest, which was compared, says it all
                pending.box = self._box(layer, None)
            return
        pending.active = snapshots.prepare(pending.parent)
        self._trees[layer.number - 1] = pending.active.upper
        pending.box = self._box(layer, pending.active.upper)

    def _box(self, layer: Layer, target: Path | None) -> Box:
        # Where no process can be started, as with too many open files, that is the host's word.
        with disk_errors(self._store.home), self._store.content.open(layer.blob.digest) as blob:
            return Box(
                blob.fileno(),
                target,
                idmap=self._store.idmap,
                userxattr=self._store.userxattr,
                parents=self._trees[: layer.number - 1][::-1] if target else [],
            )

    def _busy(self) -> list[Box]:
        boxes = [pending.box for pending in self._pending if pending.box is not None]
        done = _done(boxes, wait=False)
        return [box for box in boxes if box not in done]

    def _freeze_done(self) -> bool:
        """Freeze the layers that can be; False if there is none."""
        found = False
        while self._pending and self._is_ready(self._pending[0]):
            self._freeze_first()
            found = True
        return found

    @staticmethod
    def _is_ready(pending: _Pending) -> bool:
        return pending.box is None or bool(_done([pending.box], wait=False))

    def _freeze_first(self) -> None:
        pending = self._pending[0]
        layer, size = pending.layer, 0
        if pending.box is not None:
            with _named(layer):
                size = check_layer(pending.box.result(), layer.diff_id, layer.compression).size
        self._pending.popleft()
        self._let_first_inherit()
        if pending.active is not None:
            self._freeze(pending, pending.active, size)

    def _freeze(self, pending: _Pending, active: Active, size: int) -> None:
        layer, made = pending.layer, active.upper.stat().st_ino
        try:
            frozen = self._store.snapshots.commit(active, layer.diff_id, size, layer.created_by)
        except BaseException:
            self._drop(pending)
            raise
        self._trees[layer.number - 1] = frozen.path
        if frozen.path.stat().st_ino != made:
            # Another process was first and ours is gone: who stands on it must not look at it.
            for above in self._pending:
                self._drop(above)
                self._begin(above)
            self._let_first_inherit()

    def _let_first_inherit(self) -> None:
        if self._pending and (box := self._pending[0].box) is not None:
            box.allow_parents()

    def _drop(self, pending: _Pending) -> None:
        if pending.box is not None:
            pending.box.close()
        if pending.active is not None:
            self._store.snapshots.remove(pending.active)
        pending.box = pending.active = None


def _done(boxes: list[Box], *, wait: bool) -> set[Box]:
    """Those that have an answer; if ``wait``, one at least."""
    poll, by_fd = select.poll(), {box.fileno(): box for box in boxes}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return {by_fd[fd] for fd, _ in poll.poll(None if wait else 0)}


@contextmanager
def _named(layer: Layer) -> Iterator[None]:
    """Say of an error which layer it is about."""
    try:
        yield
    except ImageError as error:
        text = f"layer {layer.number} ({layer.blob.digest.short}): {error.message}"
        raise ImageError(text, hint=error.hint) from error
