"""Progress: how far a chain of steps is built, as values."""

from __future__ import annotations

from collections.abc import Sequence

from ..oci.digest import Digest
from ..oci.spec import Descriptor, History, ImageConfig, MediaType
from ..record import field, record, replace
from .events import Layer
from .step import Copy, Packages, Shell, Step


@record
class Numbered:
    """A step with its place in the notebook, for events."""

    step: Step
    step_id: str
    number: int


@record
class Progress:
    """How far a chain is built: the image so far, its layers, and the time new files get."""

    config: ImageConfig
    descriptors: tuple[Descriptor, ...]
    layers: tuple[Layer, ...]
    epoch: int

    @property
    def chain_id(self) -> Digest:
        """The name of the file system so far."""
        return self.layers[-1].chain_id

    def as_cached(self) -> Progress:
        """The same, as it looks the next time: nothing had to run."""
        *before, last = self.layers
        return replace(self, layers=(*before, replace(last, cached=True)))

    def with_config(self, config: ImageConfig, created_by: str) -> Progress:
        """The same file system with another config."""
        entry = History(created=config.created, created_by=created_by, empty_layer=True)
        return replace(self, config=replace(config, history=(*config.history, entry)))

    def with_layer(self, layer: Layer) -> Progress:
        """One layer more."""
        entry = History(created=self.config.created, created_by=layer.created_by)
        config = replace(
            self.config,
            diff_ids=(*self.config.diff_ids, layer.diff_id),
            history=(*self.config.history, entry),
        )
        # An uncompressed tar is its own blob: the manifest can name it before it exists as one.
        blob = Descriptor(media_type=MediaType.LAYER, digest=layer.diff_id, size=layer.size)
        return replace(
            self,
            config=config,
            descriptors=(*self.descriptors, blob),
            layers=(*self.layers, layer),
        )


@record(frozen=False)
class Trail:
    """How a stage was solved last: what each step of its chain, from the base on, led to.

    While a chain begins with the same steps, they need not be looked up again.
    """

    base: Digest | None = None
    known: list[tuple[Step, Progress]] = field(default_factory=list)

    def start(self, base: Progress) -> None:
        """Forget everything if the base is another one."""
        if self.base != base.chain_id:
            self.base = base.chain_id
            self.known.clear()

    def common(self, steps: Sequence[Step]) -> int:
        """How many of the first ``steps`` led somewhere: nothing before them changed, and they
        read no files. What followed them is forgotten.
        """
        pairs = zip(self.known, steps, strict=False)
        count = 0
        for (known, _), step in pairs:
            # Most often it is the very same one, and comparing the others takes its time.
            if (known is not step and known != step) or reads_files(step):
                del self.known[count:]
                break
            count += 1
        return count


def reads_files(step: Step) -> bool:
    """Whether what it makes depends on files of the host too, which others change."""
    if isinstance(step, Shell):
        return bool(step.mounts)
    return isinstance(step, Copy) or (isinstance(step, Packages) and bool(step.files))
