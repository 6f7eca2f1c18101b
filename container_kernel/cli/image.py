"""``image``: what is in the store, by name, and how it travels as files."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import load as load_config
from ..display import images as shown
from ..errors import UsageError
from ..kernel import images
from ..runtime import namespace
from ..store.store import Store
from .arguments import Options
from .report import Report


def open_store(report: Report) -> Store:
    """The user's store, with the ids its files have."""
    config = load_config()
    here = namespace.enter(os.environ)
    store = Store(config.home, here.idmap, userxattr=here.is_rootless)
    for notice in store.take_notices():
        report.note(notice)
    return store


def show_all(_options: Options, report: Report) -> int:
    """List the names in the store."""
    named = images.named(open_store(report))
    report.result(shown.data(named), shown.table(named))
    return 0


def inspect(options: Options, report: Report) -> int:
    """Show one image: config, layers, names."""
    store = open_store(report)
    image = images.image(store, images.find(store, options.image))
    names = images.names_of(store, image.digest)
    text = str(shown.inspection(image, names)["text/plain"])
    report.result(shown.inspected(image, names), text)
    return 0


def tag(options: Options, report: Report) -> int:
    """Give an image another name."""
    store = open_store(report)
    digest = images.find(store, options.image)
    name = images.tag(store, digest, options.name)
    report.result({"name": name, "digest": str(digest)}, f"{name}  {digest}")
    return 0


def remove(options: Options, report: Report) -> int:
    """Remove names."""
    removed = images.remove(open_store(report), options.names)
    report.result({"removed": removed}, "\n".join(f"removed {name}" for name in removed))
    return 0


def save(options: Options, report: Report) -> int:
    """Write an image to a file or, with ``--format oci``, a folder."""
    path = Path(options.output).absolute()
    if not path.parent.is_dir():
        raise UsageError(f"the folder of {options.output} does not exist")
    store = open_store(report)
    digest = images.find(store, options.image)
    images.save(store, digest, path, options.format, options.image)
    report.result({"digest": str(digest), "path": str(path)}, f"{digest}  {path}")
    return 0


def load(options: Options, report: Report) -> int:
    """Read images from an archive or an OCI layout folder."""
    path = Path(options.input).absolute()
    if not path.exists():
        raise UsageError(f"{options.input} does not exist")
    loaded = images.load(open_store(report), path, options.name, on_log=report.log)
    data = [{"name": name, "digest": str(digest)} for name, digest in loaded]
    text = "\n".join(f"{name or '(no name)'}  {digest}" for name, digest in loaded)
    report.result({"images": data}, text)
    return 0
