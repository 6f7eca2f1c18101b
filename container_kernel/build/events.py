"""Events: what a build tells while it works, as values.

Whoever listens (the notebook's cards, a terminal, a test's list) gets them through one
``on_event`` callback, in order. ``step_id`` is stable for one step of one build.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import errors
from ..errors import ContainerKernelError
from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from ..record import record
from .cancel import Cancel

if TYPE_CHECKING:
    from ..store.snapshots import Active


@record
class Layer:
    """One frozen layer of an image. ``size`` is the bytes of its uncompressed tar.

    ``key`` is the cache key of the step that made it; empty for what no step of ours made.
    """

    diff_id: Digest
    chain_id: Digest
    size: int
    created_by: str
    seconds: float = 0.0
    cached: bool = True
    key: str = ""


@record
class Image:
    """A frozen image: ``digest`` names its manifest, ``image_id`` its config."""

    digest: Digest
    image_id: Digest
    config: ImageConfig
    layers: tuple[Layer, ...]

    @property
    def chain_id(self) -> Digest:
        """The name of its whole file system."""
        return self.layers[-1].chain_id


@record(kw_only=True)
class _About:
    """Which step an event is about; ``number`` 0 is the base."""

    step_id: str
    stage: str
    number: int
    total: int
    title: str


@record(kw_only=True)
class StepStarted(_About):
    """A step is not cached and begins to run."""


@record(kw_only=True)
class StepLog:
    """Output of the running step, as it comes."""

    step_id: str
    text: str


@record(kw_only=True)
class StepFinished(_About):
    """A step is frozen, or was already. ``layer`` is None for a setting."""

    layer: Layer | None
    cached: bool
    seconds: float


@record(kw_only=True)
class StepFailed(_About):
    """A step ended with an error or was interrupted; nothing of it was frozen."""

    error: ContainerKernelError
    exit_code: int | None
    tail: tuple[str, ...]
    seconds: float
    interrupted: bool
    is_kept: bool = False
    """What it had written can be looked at."""


Event = StepStarted | StepLog | StepFinished | StepFailed
OnEvent = Callable[[Event], None]


@record(kw_only=True)
class About(_About):
    """One step of one build, before anything happened to it; makes the events of that step."""

    def started(self) -> StepStarted:
        """It is not cached and begins to run."""
        return StepStarted(
            step_id=self.step_id,
            stage=self.stage,
            number=self.number,
            total=self.total,
            title=self.title,
        )

    def log(self, text: str) -> StepLog:
        """It said something."""
        return StepLog(step_id=self.step_id, text=text)

    def finished(self, layer: Layer | None) -> StepFinished:
        """It is frozen; without a layer it is a setting, in force at once."""
        return StepFinished(
            step_id=self.step_id,
            stage=self.stage,
            number=self.number,
            total=self.total,
            title=self.title,
            layer=layer,
            cached=layer.cached if layer else True,
            seconds=layer.seconds if layer else 0.0,
        )

    def failed(
        self, error: ContainerKernelError, seconds: float, *, is_kept: bool = False
    ) -> StepFailed:
        """It went wrong, or was stopped."""
        return StepFailed(
            step_id=self.step_id,
            stage=self.stage,
            number=self.number,
            total=self.total,
            title=self.title,
            error=error,
            exit_code=error.exit_code if isinstance(error, errors.StepFailed) else None,
            tail=error.tail if isinstance(error, errors.StepFailed) else (),
            seconds=seconds,
            interrupted=isinstance(error, errors.Interrupted),
            is_kept=is_kept,
        )


OnNamed = Callable[[Digest], None]
"""Told the chain ID of a layer that is about to be frozen."""


@record
class Watch:
    """Who is told what a step does, and what may stop it.

    ``named`` is called when the new layer's name is known, in another thread, while the layer is
    written to disk. ``left`` is given what a command had written that failed, and says whether it
    takes that.
    """

    log: Callable[[str], None]
    cancel: Cancel
    named: OnNamed
    left: Callable[[Active], bool] = lambda _: False
