"""``image``: what is in the store, by name, and how it travels."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..build import registries
from ..build.cancel import Cancel
from ..build.registries import Registries
from ..config import load as load_config
from ..display import images as shown
from ..display import travel
from ..errors import UsageError
from ..kernel import images
from ..runtime import namespace
from ..store.store import Store
from ..transfer.output import destination
from .arguments import Options
from .report import Report

if TYPE_CHECKING:
    from ..transfer.registry_http import Access
    from ..transfer.traffic import OnTraffic


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


def diff(options: Options, report: Report) -> int:
    """Show what differs between two images."""
    from ..build.environments import Environments, Side
    from ..display import contrast
    from .build import bench

    with bench(Path.cwd(), report) as built:
        host, store = built.workbench.host, built.workbench.store
        names = (options.before, options.after)
        before, after = (
            Side(name, images.image(store, images.find(store, name))) for name in names
        )
        known = Environments(host, store)
        if options.path:
            lines = known.lines(before, after, options.path)
            report.result({"lines": lines}, str(contrast.unified(lines)["text/plain"]))
        else:
            found = known.compare(before, after)
            report.result(found.to_json(), contrast.text(found))
    return 0


def save(options: Options, report: Report) -> int:
    """Write an image to a file or, with ``--format oci``, a folder."""
    from ..transfer.archive import OCI_FOLDER

    path = Path(options.output).absolute()
    destination(path, is_folder=options.format == OCI_FOLDER)
    store = open_store(report)
    digest = images.find(store, options.image)
    images.save(store, digest, path, options.format, options.image, layer=options.layer)
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


def push(options: Options, report: Report) -> int:
    """Send an image to a registry, or say what would be sent."""
    from ..transfer.push import push as push_image

    store = open_store(report)
    name = options.name or options.image
    reference = registries.needed(name)
    digest = images.find(store, options.image)
    with _traffic(report) as (access, on_traffic):
        pushed = push_image(
            digest,
            reference,
            store,
            access,
            compression=options.compression,
            dry_run=options.dry_run,
            on_traffic=on_traffic,
        )
    dry_run = options.dry_run
    report.result(
        travel.pushed_data(name, pushed, dry_run=dry_run),
        travel.pushed_text(name, pushed, dry_run=dry_run),
    )
    return 0


def pull(options: Options, report: Report) -> int:
    """Bring an image from a registry, or say what would be fetched."""
    from ..transfer.pull import pull as pull_image

    store = open_store(report)
    reference = registries.needed(options.image).with_default_tag()
    name = options.name or images.name_of(reference)
    dry_run = options.dry_run
    with _traffic(report) as (access, on_traffic):
        pulled = pull_image(reference, store, access, dry_run=dry_run, on_traffic=on_traffic)
    if name and not dry_run:
        name = images.tag(store, pulled.digest, name)
    shown_name = name or str(reference)
    report.result(
        travel.pulled_data(shown_name, pulled, dry_run=dry_run),
        travel.pulled_text(shown_name, pulled, dry_run=dry_run),
    )
    return 0


@contextmanager
def _traffic(report: Report) -> Iterator[tuple[Access, OnTraffic]]:
    """How registries are reached, and who is told how far it is; Ctrl-C stops it."""
    config, cancel = load_config(), Cancel()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    line = travel.TrafficLine(report.progress, is_live=report.width is not None)
    known = Registries(config.environ, config.user_home, config.plain_http)
    yield known.access(cancel, report.note), line.on_traffic
