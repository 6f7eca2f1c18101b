"""Recipe: how an image comes about, as one value: what exports say in other tools' words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..oci.spec import ImageConfig
from ..record import record
from . import settings
from .events import Image, Layer
from .source import epoch_of
from .stages import sources
from .step import Setting, Step

FindImage = Callable[[str], Image]


@record
class Made:
    """One step, the config that it began with, and the layer it made; a setting makes none."""

    step: Step
    config: ImageConfig
    layer: Layer | None = None


@record
class StageRecipe:
    """One stage: where it starts, its steps, and the image they were frozen into.

    ``others`` are the images that are no stages and that files are copied from, by what the steps
    call them.
    """

    name: str
    reference: str
    base: Image
    steps: tuple[Made, ...]
    image: Image
    others: Mapping[str, Image]

    @property
    def epoch(self) -> int:
        """The time that what its steps write has, in seconds since 1970."""
        return epoch_of(self.base.config)

    @classmethod
    def of(
        cls,
        name: str,
        start: tuple[str, Image],
        image: Image,
        steps: tuple[Step, ...],
        others: Mapping[str, Image],
    ) -> StageRecipe:
        """Put the steps beside the layers they made; ``start`` is the base's name and image."""
        reference, base = start
        layers = iter(image.layers[len(base.layers) :])
        config, made = base.config, []
        for step in steps:
            made.append(Made(step, config, None if isinstance(step, Setting) else next(layers)))
            if isinstance(step, Setting):
                config = settings.apply(config, step)
        return cls(name, reference, base, tuple(made), image, others)


def others(
    steps: tuple[Step, ...], stages: Mapping[str, object], find: FindImage
) -> dict[str, Image]:
    """The images that are no stages and that ``steps`` copy from."""
    return {name: find(name) for name in sources(steps) if name not in stages}
