"""Bundle: a notebook, what its cells read, and its images in one file.

With it the notebook runs on a machine that has no network.

It is an OCI archive of the images with further members: ``bundle.json`` and the files of the
notebook's folder that cells read, below ``files/``. It is opened into a folder and a store of its
own: there, and only there, the layers it brings answer for the steps it says they answer for.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import CannotExport, ImageError
from ..oci.digest import Digest
from ..oci.strict_json import MAX_BYTES, canonical, parse
from ..record import record
from ..store.store import Store
from ..transfer.archive import Member, save_all
from ..transfer.load import load
from ..transfer.outgoing import Write
from ..transfer.source import Source, open_source
from .definition import definitions
from .events import Image
from .inputs import Entry, Folder
from .journal import Journal
from .lock import checked
from .recipe import StageRecipe
from .source import is_path
from .step import Copy, Packages

VERSION = 1
_INDEX = "bundle.json"
_FILES = "files"
_KEY = re.compile(r"[0-9a-f]{64}")


@record
class Place:
    """A notebook's folder, the notebook in it, the store, and where definitions lie."""

    notebook: Path
    store: Store
    journal: Journal
    definitions: Sequence[Path]


def write(stages: Sequence[StageRecipe], place: Place, path: Path) -> None:
    """Write the bundle of all ``stages`` of a notebook to ``path``.

    Raises:
        CannotExport: a base is itself a notebook, or lies outside the notebook's folder.
        UsageError: ``path`` cannot be written.
    """
    folder = Folder.of_notebook(place.notebook.parent)
    try:
        entries = _entries(folder, dict.fromkeys(_inputs(stages, place)))
        starts = {name: image for stage in stages for name, image in _starts(stage).items()}
        contents = {
            "version": VERSION,
            "notebook": place.notebook.name,
            "entries": [[name, entry.mode, entry.link] for name, entry in entries.items()],
            **_names(starts, place),
            "steps": [step for stage in stages for step in _steps(stage, place.journal)],
        }
        images = [image.digest for image in (*starts.values(), *(s.image for s in stages))]
        index = canonical(contents)
        if len(index) > MAX_BYTES:
            raise CannotExport(
                f"a bundle holds the names of some 20,000 files, these are {len(entries)}",
                hint="put folders that %copy takes into an archive",
            )
        first: Member = (_INDEX, len(index), partial(_put, index))
        members = chain([first], _members(folder, entries))
        save_all(list(dict.fromkeys(images)), path, members, store=place.store)
    finally:
        folder.close()


def unpack(path: Path, folder: Path, store: Store) -> Path:
    """Put the files of the bundle at ``path`` into the new ``folder`` and its images into
    ``store``, which is for this bundle alone; return the notebook.

    Raises:
        ImageError: it is no bundle, or not what it must be.
    """
    with open_source(path, store.home) as source:
        if not source.has(_INDEX):
            raise ImageError(f"{path.name} is no bundle", hint="container-kernel bundle makes one")
        with source.open(_INDEX) as file:
            contents = parse(file.read(MAX_BYTES + 1), _INDEX)
        try:
            if contents["version"] != VERSION:
                raise ImageError(
                    f"{path.name} is a bundle of version {contents['version']}, this program "
                    f"knows {VERSION}",
                    hint="upgrade container-kernel",
                )
            notebook = _plain(contents["notebook"])
            entries = {_plain(name): (mode, link) for name, mode, link in contents["entries"]}
            _fill(folder, entries, source)
            load(path, store)
            _know(contents, store)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ImageError(f"{path.name}: {_INDEX} is damaged: {error}") from error
    return folder / notebook


# ---------------------------------------------------------------- what goes in


def _inputs(stages: Sequence[StageRecipe], place: Place) -> Iterator[str]:
    """What lies in the notebook's folder and is read, the notebook first."""
    yield place.notebook.name
    lock = place.notebook.with_suffix(".lock.json")
    if lock.exists():
        yield lock.name
    for stage in stages:
        yield from (name for name in _starts(stage) if is_path(name))
        for made in stage.steps:
            if isinstance(made.step, Packages):
                yield from made.step.files
            elif isinstance(made.step, Copy) and made.step.from_stage is None:
                yield from made.step.sources


def _starts(stage: StageRecipe) -> dict[str, Image]:
    """The images that a stage begins with or takes files from, by what cells call them."""
    return {stage.reference: stage.base, **stage.others}


def _entries(folder: Folder, inputs: Iterable[str]) -> dict[str, Entry]:
    """Everything in ``inputs`` by its path in the notebook's folder."""
    found: dict[str, Entry] = {}
    for name in inputs:
        if name.endswith(".ipynb") and found:
            raise CannotExport(
                f"%base {name} cannot be bundled: it is a notebook",
                hint="name its image with %tag, and use that as the base",
            )
        for entry in folder.walk(folder.check(name)):
            found[os.path.normpath(os.path.join(name, entry.path))] = entry
    return found


def _members(folder: Folder, entries: Mapping[str, Entry]) -> Iterator[Member]:
    for name, entry in entries.items():
        if stat.S_ISREG(entry.mode):
            with folder.open(name, Entry("", entry.mode)) as file:
                size = os.fstat(file.fileno()).st_size
                yield f"{_FILES}/{name}", size, partial(_copy, file)


def _copy(file: Any, write_to: Write) -> None:
    while piece := file.read(1 << 20):
        write_to(piece)


def _put(data: bytes, write_to: Write) -> None:
    write_to(data)


def _names(starts: Mapping[str, Image], place: Place) -> dict[str, Any]:
    """Which image each base is: by the key of its definition, or by a name in the store."""
    keys, tags = {}, {}
    for name, image in starts.items():
        definition = definitions(place.definitions, mentioning=name).get(name)
        if definition:
            keys[definition.key] = str(image.chain_id)
        elif not is_path(name) and "sha256:" not in name:
            tags[name] = str(image.digest)
    return {"bases": keys, "tags": tags}


def _steps(stage: StageRecipe, journal: Journal) -> Iterator[dict[str, Any]]:
    """Which step made which layer, of what."""
    for layer in (made.layer for made in stage.steps if made.layer):
        yield {
            "key": layer.key,
            "chain_id": str(layer.chain_id),
            "diff_id": str(layer.diff_id),
            "parts": journal.parts(layer.key),
            "inputs": journal.inputs(layer.key, layer.diff_id) or [],
        }


# ---------------------------------------------------------------- what comes out


def _plain(name: str) -> str:
    """``name``, if it is a path that stays in the folder it is taken from."""
    if not name or name != os.path.normpath(name) or name.startswith(("/", "..")) or "\0" in name:
        raise ValueError(f"{name!r} is no plain path")
    return name


def _fill(folder: Path, entries: Mapping[str, tuple[int, str | None]], source: Source) -> None:
    """Make folders and files, then links: nothing is written through one of them."""
    folders = [name for name, (mode, _) in entries.items() if stat.S_ISDIR(mode)]
    for name, (mode, link) in entries.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(mode):
            (folder / name).mkdir(exist_ok=True)
        elif link is None:
            with source.open(f"{_FILES}/{name}") as file, (folder / name).open("xb") as copy:
                shutil.copyfileobj(file, copy)
            (folder / name).chmod(stat.S_IMODE(mode) & 0o777)
    for name, (_, link) in entries.items():
        if link is not None:
            (folder / name).symlink_to(link)
    for name in folders:
        (folder / name).chmod(stat.S_IMODE(entries[name][0]) & 0o777)


def _know(contents: Mapping[str, Any], store: Store) -> None:
    """Let the layers that came answer for what the bundle says, in its own store."""
    journal = Journal(store.home)
    known = {**contents["bases"], **{one["key"]: one["chain_id"] for one in contents["steps"]}}
    for key, chain_id in known.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a step")
        snapshot = store.snapshots.get(Digest(chain_id))
        if snapshot is None:
            raise ValueError(f"it names the layer {chain_id}, which it does not have")
        store.remember_layer(key, snapshot, 0.0)
    for one in contents["steps"]:
        journal.write(
            one["key"], one["parts"], Digest(one["diff_id"]), [*map(checked, one["inputs"])]
        )
    for name, digest in contents["tags"].items():
        store.tags.set(name, Digest(digest))
