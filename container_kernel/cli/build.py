"""``build``: only the build cells of a notebook."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..build.cancel import Cancel
from ..build.events import Image, OnEvent
from ..config import load
from ..display.layers import stage_data
from ..kernel.magics import build_items
from ..record import record, replace
from ..runtime import namespace
from ..workbench import Workbench
from . import notebook as notebooks
from .arguments import Options
from .report import Report


@record
class Bench:
    """A workbench, who listens to it, and how it is stopped."""

    workbench: Workbench
    on_event: OnEvent
    cancel: Cancel

    def build(self) -> Mapping[str, Image]:
        """Build every stage of the notebook."""
        return self.workbench.build_all(on_event=self.on_event, cancel=self.cancel)

    def image(self, stage: str | None = None) -> Image:
        """The image of a stage, with whatever was stale built again."""
        return self.workbench.image(stage, on_event=self.on_event, cancel=self.cancel)


def build(options: Options, report: Report) -> int:
    """Run the build cells and print what stages there are."""
    path = notebooks.path_of(options.notebook)
    notebooks.document(path)
    started = time.monotonic()
    use_cache, is_locked = not options.no_cache, options.locked
    with bench(
        path.parent, report, notebook=path, use_cache=use_cache, is_locked=is_locked
    ) as built:
        images = built.build()
    data = {
        "status": "ok",
        "stages": {name: stage_data(image) for name, image in images.items()},
        "seconds": round(time.monotonic() - started, 3),
    }
    lines = [f"{name}  {made.digest}  {len(made.layers)} layers" for name, made in images.items()]
    report.result(data, "\n".join(lines) or "no build cells in this notebook")
    return 0


@contextmanager
def bench(
    folder: Path,
    report: Report,
    *,
    notebook: Path | None = None,
    use_cache: bool = True,
    is_locked: bool = False,
) -> Iterator[Bench]:
    """A workbench in namespaces of its own; Ctrl-C stops what it does."""
    config = load()
    config = replace(config, is_locked=config.is_locked or is_locked)
    place = namespace.enter(os.environ)
    cancel = Cancel()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    signal.signal(signal.SIGTERM, lambda *_: cancel.set())
    workbench = Workbench(
        config, place, folder, parse=build_items, notebook=notebook, use_cache=use_cache
    )
    for notice in workbench.store.take_notices():
        report.note(notice)
    try:
        yield Bench(workbench, report.on_event(), cancel)
    finally:
        workbench.close()
