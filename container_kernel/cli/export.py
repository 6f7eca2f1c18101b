"""``export`` and ``sbom``: a notebook's environment in another tool's words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..build import sbom as bills
from ..kernel import exports
from ..kernel.bills import contents, of_image
from ..kernel.exports import Source
from ..transfer.output import destination, written_whole
from . import notebook as notebooks
from .arguments import Options
from .build import bench
from .report import Report


@contextmanager
def source(options: Options, report: Report) -> Iterator[Source]:
    """The notebook that the options name, built."""
    path = notebooks.path_of(options.notebook)
    notebooks.document(path)
    with bench(path.parent, report, notebook=path) as built:
        built.build()
        yield Source(built.workbench, path.parent, options.stage, built.on_event, built.cancel)


def export(options: Options, report: Report) -> int:
    """Write one format of a notebook's environment."""
    form = exports.check(options.format)
    beside = notebooks.path_of(options.notebook).with_name(form.name)
    named = Path(options.output).absolute() if options.output else beside
    target = destination(named, is_folder=form.is_folder)
    output = str(named if form.is_folder else target)  # a folder behind a link is not ours
    with source(options, report) as drawn_from:
        path = exports.export(drawn_from, options.format, output)
    report.result({"format": options.format, "path": str(path)}, str(path))
    return 0


def sbom(options: Options, report: Report) -> int:
    """Write the bill of materials of a notebook's image, or of one in the store."""
    output = Path(options.output).absolute() if options.output else None
    if output:
        destination(output)  # before anything is built
    with _listed(options, report) as found:
        text = bills.write(found, options.format)
    if output is None:
        report.result(json.loads(text), text.rstrip())
        return 0
    with written_whole(output) as draft:
        draft.write_text(text, encoding="utf-8")
    report.result({"path": str(output), "format": options.format}, str(output))
    return 0


@contextmanager
def _listed(options: Options, report: Report) -> Iterator[bills.Contents]:
    if options.image.endswith(".ipynb"):
        options.notebook = options.image
        with source(options, report) as drawn_from:
            yield contents(drawn_from)
    else:
        with bench(Path.cwd(), report) as built:
            image = built.workbench.find_image(options.image, built.cancel)
            yield of_image(built.workbench, image, options.image)
