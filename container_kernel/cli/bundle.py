"""``bundle``: a notebook and its images in one file, and such a file opened."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ..build import bundle as bundles
from ..config import load
from ..errors import HostError, ImageError, StoreError, UsageError
from ..folders import remove_tree
from ..kernel.exports import Source
from ..runtime import namespace
from ..runtime.namespace import Namespace
from ..store import opened as opened_bundles
from ..store.opened import NAME
from ..store.store import Store
from ..transfer.output import destination
from . import notebook as notebooks
from .arguments import Options
from .build import bench
from .report import Report

_KINDS = {kind.__name__: kind for kind in (HostError, StoreError, UsageError)}


def bundle(options: Options, report: Report) -> int:
    """Write a bundle, or open one."""
    return _open(options, report) if options.open else _write(options, report)


def _write(options: Options, report: Report) -> int:
    path = notebooks.path_of(options.notebook)
    notebooks.document(path)
    output = Path(options.output or path.with_suffix(".bundle.tar").name).absolute()
    destination(output)  # before anything is built
    with bench(path.parent, report, notebook=path) as built:
        built.build()
        workbench = built.workbench
        source = Source(workbench, path.parent, None, built.on_event, built.cancel)
        place = bundles.Place(
            path, workbench.store, workbench.ledger.journal, workbench.config.base_folders
        )
        bundles.write(source.stages, place, output)
    size = output.stat().st_size
    report.result({"path": str(output), "bytes": size}, f"{output}  {size} bytes")
    return 0


def _open(options: Options, report: Report) -> int:
    path = Path(options.notebook).absolute()
    config = load()
    if not path.is_file():
        raise UsageError(f"bundle {options.notebook} does not exist")
    with path.open("rb") as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    place = opened_bundles.folder(config.home) / name
    here = namespace.enter(os.environ)
    if not opened_bundles.use(place):
        _unpack(path, place, here)
    opened = place / "notebook" / (place / NAME).read_text(encoding="utf-8")
    data = {"notebook": str(opened), "home": str(place / "store")}
    report.result(data, f"{opened}\nrun it with CONTAINER_KERNEL_HOME={data['home']}")
    return 0


def _unpack(path: Path, place: Path, here: Namespace) -> None:
    """Make ``place``, whole: the notebook's folder, the store, and what the notebook is called."""
    draft = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
    try:
        (draft / "notebook").mkdir(mode=0o700, parents=True)
        store = Store(draft / "store", here.idmap, userxattr=here.is_rootless)
        try:
            notebook = bundles.unpack(path, draft / "notebook", store)
        finally:
            store.close()
        (draft / NAME).write_text(notebook.name, encoding="utf-8")
        with suppress(OSError):  # whoever opened the same meanwhile has the same
            draft.rename(place)
    finally:
        if draft.exists():
            remove_tree(draft)


def opened(path: Path, report: Report) -> Path:
    """The notebook in the bundle at ``path``; this process uses the bundle's store from now on.

    It is opened by another process: one that has entered namespaces could not start a kernel as
    this one can.
    """
    report.note(f"opening {path.name}")
    command = [sys.executable, "-P", "-m", "container_kernel", "bundle", "--open", "--json"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise HostError(f"{path.name} cannot be opened: {done.stderr.strip()}") from None
    if error := found.get("error"):
        kind = _KINDS.get(error["type"], ImageError)
        raise kind(error["message"], hint=error["hint"])
    os.environ["CONTAINER_KERNEL_HOME"] = found["home"]
    return Path(found["notebook"])
