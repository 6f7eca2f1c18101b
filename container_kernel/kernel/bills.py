"""Bills: what ``%sbom`` and ``container-kernel sbom`` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..build import sbom
from ..build.installed import packages
from ..build.source import epoch_of
from ..runtime.view import View

if TYPE_CHECKING:
    from ..build.events import Image
    from ..workbench import Workbench
    from .exports import Source
    from .magics import Command
    from .verbs import Context

MEDIA_TYPES = {"spdx": "application/spdx+json", "cyclonedx": "application/vnd.cyclonedx+json"}
ENDINGS = {"spdx": "sbom.spdx.json", "cyclonedx": "sbom.cdx.json"}


def contents(source: Source) -> sbom.Contents:
    """What the image of a stage holds; it is called as the stage is, wherever that was built."""
    image = source.image
    return of_image(source.workbench, image, source.stage or source.workbench.current or "")


def of_image(workbench: Workbench, image: Image, name: str) -> sbom.Contents:
    """What an image holds."""
    with View(workbench.host, workbench.store, image.chain_id) as view:
        found = packages(view)
    return sbom.Contents(name, image.digest, found, epoch_of(image.config))


def run(command: Command, context: Context) -> None:
    """``%sbom``."""
    screen, args, bench = context.screen, command.args, context.workbench
    if reference := args.word():
        image = bench.find_image(reference, context.cancel)
    else:
        image = bench.image(args["stage"], on_event=screen.on_event, cancel=context.cancel)
    listed = of_image(bench, image, reference or args["stage"] or bench.current or "")
    form = args["format"]
    name = args["output"] or ENDINGS[form]
    (context.directory / name).write_text(sbom.write(listed, form), encoding="utf-8")
    screen.show({"text/plain": f"{summary(listed)}\nwritten to {name}"})


def summary(listed: sbom.Contents) -> str:
    """How many packages of each kind there are."""
    kinds = [package.kind for package in listed.distinct.values()]
    counts = [f"{kinds.count(kind)} {kind}" for kind in sorted({*kinds})]
    return f"{listed.name} has {len(kinds)} packages" + (f": {', '.join(counts)}" if kinds else "")
