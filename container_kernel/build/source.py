"""Source: what ``%base`` means, and the first layers it gives.

A definition in ``images/`` (plain data, TOML), a tag or digest in the store, an image at a
registry, an OCI layout or archive, a docker archive, or another notebook. Definitions are
bootstrapped once and cached by their content; everything else is named by a digest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BaseNotFound, CellError
from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from ..runtime.bundle import DEFAULT_PATH
from ..store.snapshots import Snapshot
from .cancel import Cancel
from .definition import Definition, definitions
from .journal import Journal, base_key
from .progress import Progress
from .solve import layer_of

if TYPE_CHECKING:
    from .lock import LockedStage
    from .registries import Registries
    from .workplace import Workplace

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DEFAULT_EPOCH = 0


class Bases:
    """Finds and makes bases in one workplace. ``notebook`` builds another notebook."""

    def __init__(
        self,
        place: Workplace,
        folders: Sequence[Path],
        directory: Path,
        notebook: Callable[[Path], Progress],
        registries: Registries,
    ) -> None:
        self._place = place
        self._store = place.store
        self._folders = folders
        self._directory = directory
        self._notebook = notebook
        self._registries = registries
        self._journal = Journal(place.store.home)
        self._images: dict[Digest, Progress] = {}
        self._firsts: dict[str, Progress] = {}

    def cached(self, reference: str, locked: LockedStage | None = None) -> Progress | None:
        """The base, if nothing must be made, loaded or built for it; the locked one, if any."""
        definition = definitions(self._folders, mentioning=reference).get(reference)
        if definition:
            return self._bootstrapped(definition, locked)
        if is_path(reference):
            return None
        digest = self._store.find_image(reference)
        return self._of_image(digest) if digest else None

    def make(
        self,
        reference: str,
        on_log: Callable[[str], None],
        cancel: Cancel,
        locked: LockedStage | None = None,
    ) -> Progress:
        """The base, whatever it takes.

        Raises:
            BaseNotFound: it is nowhere.
        """
        definition = definitions(self._folders, mentioning=reference).get(reference)
        if definition:
            return self._bootstrap(definition, on_log, cancel, locked)
        if is_path(reference):
            return self._from_path((self._directory / reference).resolve(), on_log)
        digest = self._store.find_image(reference)
        if digest is None:
            from .registries import remote

            named = remote(reference)
            if named:
                digest = self._registries.pull(named, self._store, on_log, cancel)
        if digest is None:
            raise BaseNotFound(reference, hint=self._what_exists())
        return self._of_image(digest)

    def _from_path(self, path: Path, on_log: Callable[[str], None]) -> Progress:
        if not path.exists():
            raise BaseNotFound(str(path), hint="check the path; it is relative to the notebook")
        if path.suffix == ".ipynb":
            on_log(f"building {path.name}\n")
            return self._notebook(path)
        from ..transfer.load import load  # only for those who bring an archive

        names = load(path, self._store, on_log=on_log)
        if len(names) != 1:
            listed = ", ".join(sorted(name or str(digest) for name, digest in names))
            raise CellError(
                f"{path.name} holds {len(names)} images: {listed}",
                hint=f"load it once, then name one: container-kernel image load {path}",
            )
        return self._of_image(names[0][1])

    def _of_image(self, digest: Digest) -> Progress:
        known = self._images.get(digest)
        if known is None or self._store.snapshots.get(known.chain_id) is None:
            known = self._images[digest] = self._read_image(digest)
        return known

    def _read_image(self, digest: Digest) -> Progress:
        manifest = self._store.manifest(digest)
        config = self._store.image_config(manifest)
        chain = self._store.snapshots.chain(self._store.image_chain(config))
        layers = tuple(
            layer_of(snapshot, snapshot.created_by, 0.0, cached=True) for snapshot in chain
        )
        return Progress(config, manifest.layers, layers, epoch_of(config))

    def _bootstrapped(self, definition: Definition, locked: LockedStage | None) -> Progress | None:
        hit = self._store.index.find_layer(definition.key)
        chain_id, seconds = (hit.chain_id, hit.seconds) if hit else (None, 0.0)
        if locked and self._was_made(locked.base_digest):
            chain_id = locked.base_digest
        snapshot = self._store.snapshots.get(chain_id) if chain_id else None
        if snapshot is None or (locked and locked.base_inputs and chain_id != locked.base_digest):
            return None
        name = f"{definition.key} {chain_id}"
        if name not in self._firsts:
            self._firsts[name] = _first(definition, snapshot, seconds, cached=True)
        return self._firsts[name]

    def _was_made(self, chain_id: Digest) -> bool:
        """Whether this store has bootstrapped that layer, by the definition it had then."""
        return self._journal.inputs(base_key(chain_id), chain_id) is not None

    def _bootstrap(
        self,
        definition: Definition,
        on_log: Callable[[str], None],
        cancel: Cancel,
        locked: LockedStage | None,
    ) -> Progress:
        from ..oci.changeset import Clamp
        from . import bootstrap  # with what unpacks, for the first time only
        from .execute import freeze

        key = definition.key

        def wait() -> None:
            cancel.pause(0.1)

        with self._store.building(key, wait):
            existing = self._bootstrapped(definition, locked)
            if existing:
                return existing
            started, began = time.monotonic(), time.time()
            active = self._store.snapshots.prepare(None)
            try:
                wanted = locked.base_inputs if locked else ()
                took = bootstrap.fill(self._place, definition, active, on_log, cancel, wanted)
                clamp = Clamp(began, definition.epoch)
                snapshot = freeze(self._store, active, f"%base {definition.name}", clamp)
            except BaseException:
                self._store.snapshots.remove(active)
                raise
            seconds = time.monotonic() - started
            self._store.remember_layer(key, snapshot, seconds)
            parts = {"kind": "definition", "name": definition.name}
            self._journal.write(base_key(snapshot.chain_id), parts, snapshot.diff_id, took)
        return _first(definition, snapshot, seconds, cached=False)

    def _what_exists(self) -> str:
        names = [*definitions(self._folders), *self._store.tags.list()]
        return f"there are: {', '.join(names)}; or a path: ./image.tar, ./oci-folder, ./other.ipynb"


def is_made_here(reference: str, folders: Sequence[Path]) -> bool:
    """Whether a base is made from its definition or read from a file, whatever the store has."""
    return is_path(reference) or reference in definitions(folders, mentioning=reference)


def is_path(reference: str) -> bool:
    """Whether a base is read from a file."""
    endings = (".ipynb", ".tar", ".tar.gz", ".tar.zst")
    return reference.startswith(("/", "./", "../")) or reference.endswith(endings)


def _first(definition: Definition, snapshot: Snapshot, seconds: float, *, cached: bool) -> Progress:
    """The image that is nothing but the bootstrapped layer."""
    created = datetime.fromtimestamp(definition.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = os.uname().machine
    config = ImageConfig(
        architecture=_ARCHITECTURES.get(machine, machine),
        os="linux",
        created=created,
        env=(f"PATH={DEFAULT_PATH}",),
        cmd=("/bin/sh",),
    )
    empty = Progress(config, (), (), definition.epoch)
    return empty.with_layer(layer_of(snapshot, f"%base {definition.name}", seconds, cached=cached))


def epoch_of(config: ImageConfig) -> int:
    try:
        return int(datetime.fromisoformat(config.created or "").timestamp())
    except ValueError:
        return _DEFAULT_EPOCH
