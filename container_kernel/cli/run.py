"""``run``: build and execute a notebook from top to bottom, with our kernel and no front end."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

from ..build.notebook_file import with_ids_apart
from ..errors import output_refused
from ..kernel.spare import Spare
from ..transfer.output import check_folder, mode
from . import notebook as notebooks
from .arguments import Options
from .progress import Progress
from .report import Report

_KERNEL = (sys.executable, "-P", "-m", "container_kernel.kernel", "-f", "{connection_file}")


def run(options: Options, report: Report) -> int:
    """Execute; write the executed notebook, also when a cell failed."""
    notebooks.check_names(options.parameter)
    path = _path(options.notebook, report)
    output = Path(options.output).absolute() if options.output else None
    if output:
        _check_writable(output)
    document = notebooks.document(path)
    document["cells"] = with_ids_apart(document["cells"])
    environment = {**os.environ, "JPY_SESSION_NAME": str(path)}
    if options.locked:
        environment["CONTAINER_KERNEL_LOCKED"] = "1"
    spare = Spare(_KERNEL, environment)  # the kernel loads what it needs while we do
    _pass_over_url_grammar()
    import nbformat

    from .executing import Kernel, execute

    notebook = notebooks.with_parameters(_read(path, document), options.parameter)
    try:
        outcome = execute(
            notebook,
            path,
            Kernel(_KERNEL, environment, spare),
            Progress(report.note, report.width),
            ids={cell["id"] for cell in document["cells"] if cell.get("id")},
            only_stale=options.stale,
            with_meters=options.meters,
        )
    finally:
        if output:
            try:
                nbformat.write(notebook, output)  # type: ignore[no-untyped-call]
            except OSError as error:
                raise output_refused(output, error) from error
    return outcome.tell(report)


def _read(path: Path, document: dict[str, Any]) -> Any:
    import nbformat

    text = json.dumps(notebooks.with_all_fields(document))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbformat warns of cells without ids, and adds them
        try:
            return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        except Exception as error:  # of any kind: it takes for granted that this is a notebook
            raise notebooks.refused(path) from error


def _pass_over_url_grammar() -> None:
    """Spare everybody a second, where JupyterLab is installed.

    jsonschema imports a grammar of international URLs then, which is parsed each time. It does
    without where that is missing, and a notebook's schema has no URLs.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def _check_writable(output: Path) -> None:
    """Before anything runs whose outputs would be lost."""
    found = mode(output, output)
    if found is None:
        check_folder(output)
    elif stat.S_ISDIR(found):
        raise output_refused(output, "it is a folder")
    elif not os.access(output, os.W_OK):
        raise output_refused(output, os.strerror(errno.EACCES))


def _path(name: str, report: Report) -> Path:
    """The notebook that is asked for, taken out of its bundle if it is in one."""
    if not name.endswith(".tar"):
        return notebooks.path_of(name)
    from .bundle import opened

    return opened(Path(name).absolute(), report)
