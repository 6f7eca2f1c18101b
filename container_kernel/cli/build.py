"""``build``: only the build cells of a notebook."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..build.cancel import Cancel
from ..config import load
from ..display.layers import stage_data
from ..kernel.magics import BuildCell, parse
from ..runtime import namespace
from ..workbench import Workbench
from . import notebook as notebooks
from .arguments import Options
from .report import Report


def build(options: Options, report: Report) -> int:
    """Run the build cells and print what stages there are."""
    path = notebooks.path_of(options.notebook)
    cells = notebooks.code_cells(path)
    started = time.monotonic()
    with bench(path.parent, path) as (workbench, cancel):
        on_event = report.on_event()
        order = [cell.cell_id for cell in cells if cell.cell_id]
        for cell in cells:
            parsed = parse(cell.source)
            if isinstance(parsed, BuildCell):
                workbench.build(
                    cell.cell_id,
                    cell.source,
                    parsed.items,
                    order=order,
                    on_event=on_event,
                    cancel=cancel,
                )
        images = {
            name: workbench.image(name, on_event=on_event, cancel=cancel)
            for name in workbench.stages
        }
    data = {
        "status": "ok",
        "stages": {name: stage_data(image) for name, image in images.items()},
        "seconds": round(time.monotonic() - started, 3),
    }
    lines = [
        f"{name}  {image.digest}  {len(image.layers)} layers" for name, image in images.items()
    ]
    report.result(data, "\n".join(lines) or "no build cells in this notebook")
    return 0


@contextmanager
def bench(folder: Path, notebook: Path | None) -> Iterator[tuple[Workbench, Cancel]]:
    """A workbench in namespaces of its own; Ctrl-C stops what it does."""
    config = load()
    here = namespace.enter()
    cancel = Cancel()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    workbench = Workbench(config, folder, notebook, parse=parse)
    try:
        yield workbench, cancel
    finally:
        workbench.close()
        cancel.close()
