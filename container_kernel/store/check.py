"""Check: what is wrong with a store, as values: the damage, its object, and who needs that.

The quick check reads every document and looks at every name, size and mode. The full one also
hashes every blob and every frozen tree again. Nothing is changed by either; see `repair`.

A finding is *damage* when something that was acknowledged is not what it was; a *leftover* when
nobody misses it; a *note* when it says something and condemns nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import BlobDamaged, StoreError
from ..oci.digest import Digest
from ..record import record, replace
from . import index, layer, trees
from .layer import Snapshot
from .leases import folder_lock, is_locked
from .places import KNOWN
from .reach import Parts, Reach
from .store import Store
from .trees import Examine

DAMAGES = {
    "blob-missing": "damage",
    "blob-changed": "damage",
    "blob-size": "damage",
    "blob-not-a-file": "damage",
    "manifest-missing": "damage",
    "manifest-damaged": "damage",
    "config-missing": "damage",
    "config-damaged": "damage",
    "layer-missing": "damage",
    "parent-missing": "damage",
    "record-missing": "damage",
    "record-damaged": "damage",
    "tree-missing": "damage",
    trees.CONTENT: "damage",
    trees.ADDED: "damage",
    trees.REMOVED: "damage",
    trees.MODE: "damage",
    trees.OWNER: "damage",
    trees.XATTR: "damage",
    trees.MTIME: "note",
    "database-damaged": "damage",
    "row-damaged": "damage",
    "names-copy": "leftover",
    "stale-row": "leftover",
    "open-to-others": "damage",
    "staging-left": "leftover",
    "unknown-file": "leftover",
    "unverifiable": "note",
    "unreferenced": "note",
}
"""Every class of damage, and how much it matters."""
_KINDS = {
    "manifest-damaged": "manifest",
    "manifest-missing": "manifest",
    "config-damaged": "image config",
    "config-missing": "image config",
}
_LAYER = {layer.TREE, layer.RECORD, layer.HEADERS, layer.KEYS, "lock"}
_PRIVATE = ("active", "content", "content/blobs", "content/blobs/sha256", "content/ingest")
_FOLDERS = (*_PRIVATE, "leases", "quarantine", "snapshots", "trash", "")


@record
class Finding:
    """One thing that is wrong. ``thing`` is what it is called, ``path`` where it lies."""

    damage: str
    thing: str
    what: str = ""
    needed_by: tuple[str, ...] = ()
    path: str = ""

    @property
    def weight(self) -> str:
        """``damage``, ``leftover`` or ``note``."""
        return DAMAGES[self.damage]


OnProgress = Callable[[int, int, str], None]
"""Told how many things of how many are done, and which is next."""


def check(
    store: Store,
    *,
    full: bool = False,
    imported: Examine = lambda snapshot: None,
    on_progress: OnProgress = lambda done, total, what: None,
) -> list[Finding]:
    """Everything that is wrong with ``store``; nothing is collected meanwhile.

    ``imported`` says what changed in a layer whose diff_id is not of our own making, or None where
    it cannot.
    """
    with folder_lock(store.leases.folder, fcntl.LOCK_SH):
        return list(_Check(store, full, imported, on_progress).run())


class _Check:
    def __init__(
        self,
        store: Store,
        full: bool,
        imported: Examine,
        on_progress: OnProgress,
    ) -> None:
        self._store = store
        self._full = full
        self._imported = imported
        self._on_progress = on_progress

    def run(self) -> Iterator[Finding]:
        damage = self._store.index.integrity()
        if damage:
            yield Finding("database-damaged", "index.db", "; ".join(damage[:3]))
        yield from self._rows()
        self._reach = Reach(self._store)
        self._needed = self._reach.needed_by()
        yield from self._folders()
        told: set[Finding] = set()  # images share blobs and layers
        for digest in dict.fromkeys(self._reach.owners.values()):
            for finding in self._image(self._reach.parts(digest)):
                if finding not in told:
                    told.add(finding)
                    yield finding
        yield from self._layers()
        yield from self._blobs()
        yield from self._unreferenced()

    # ------------------------------------------------------------ the index

    def _rows(self) -> Iterator[Finding]:
        db = self._store.index
        for table in index.TABLES:
            for key, *_ in db.rows(table, whole=False):
                yield Finding("row-damaged", f"{table}: {key}", "its checksum is another one")
        copied = index.copied_tags(self._store.home)
        if copied != db.tags() and (copied is not None or db.tags()):
            yield Finding("names-copy", index.COPY, "does not say what the database says")

    # ------------------------------------------------------------ folders and strangers

    def _folders(self) -> Iterator[Finding]:
        home = self._store.home
        for name in _FOLDERS:
            place = home / name
            mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else 0o700
            if mode != 0o700:
                yield Finding("open-to-others", name or "the store", _modes(mode, 0o700), (), name)
        for entry in sorted(home.iterdir()):
            if entry.name.startswith((".store.json.", f".{index.COPY}.")):
                yield Finding("staging-left", entry.name, path=entry.name)
            elif entry.name not in KNOWN and not entry.name.startswith("."):
                yield Finding("unknown-file", entry.name, path=entry.name)
        for draft in (home / "content/ingest").iterdir():
            if not is_locked(draft):
                yield Finding("staging-left", draft.name, path=str(draft.relative_to(home)))

    # ------------------------------------------------------------ images

    def _image(self, parts: Parts) -> Iterator[Finding]:
        blobs, digest = self._reach.blobs, parts.digest
        if digest not in blobs:
            yield self._missing("manifest", digest)
            return
        if parts.config is None:
            yield self._about_blob("manifest-damaged", digest, parts.trouble)
            return
        config = parts.config.digest
        if config not in blobs:
            yield self._missing("config", config)
        elif parts.trouble:
            yield self._about_blob("config-damaged", config, parts.trouble)
        elif len(parts.diff_ids) != len(parts.layers):
            what = f"it lists {len(parts.diff_ids)} layers, its manifest {len(parts.layers)}"
            yield self._about_blob("config-damaged", config, what)
        for number, descriptor in enumerate(parts.layers):
            known = blobs.get(descriptor.digest)
            if known is not None and known != descriptor.size:
                what = f"it has {known} bytes, its descriptor says {descriptor.size}"
                yield self._about_blob("blob-size", descriptor.digest, what)
            # A plain layer can be written again from its tree; a compressed one cannot.
            is_plain = parts.diff_ids[number : number + 1] == (descriptor.digest,)
            if known is None and parts.diff_ids and not is_plain:
                yield self._missing("blob", descriptor.digest)
        for chain in parts.chains:
            if chain not in self._reach.layers and not self._lies_there(chain):
                needed = tuple(self._needed.get(f"layer {chain}", ()))
                yield Finding("layer-missing", f"layer {chain}", "", needed)

    def _missing(self, kind: str, digest: Digest) -> Finding:
        finding = self._about_blob(f"{kind}-missing", digest, "")
        return replace(finding, path="")

    def _lies_there(self, chain: Digest) -> bool:
        """True when there is something of that name, whatever is wrong with it."""
        return (self._store.snapshots.folder / chain.hex[:12]).exists()

    # ------------------------------------------------------------ layers

    def _layers(self) -> Iterator[Finding]:
        folders = self._store.snapshots.folders()
        for number, folder in enumerate(sorted(folders)):
            if self._full:
                self._on_progress(number, len(folders), f"layer {folder.name}")
            yield from self._layer(folder)
        if self._full:
            self._on_progress(len(folders), len(folders), "layers")

    def _layer(self, folder: Path) -> Iterator[Finding]:
        path = str(folder.relative_to(self._store.home))
        needed = self._needed_by_name(folder.name)

        def finding(damage: str, what: str, thing: str = f"layer sha256:{folder.name}") -> Finding:
            return Finding(damage, thing, what, needed, path)

        if not folder.is_dir() or folder.is_symlink():
            yield Finding("unknown-file", path, path=path)
            return
        try:
            found = layer.read(folder)
        except StoreError as error:
            yield finding("record-damaged", error.message)
            return
        if found is None:
            yield finding("record-missing", f"there is no {layer.RECORD}")
            return
        if not (found.is_consistent and found.chain_id.hex.startswith(folder.name)):
            yield finding("record-damaged", "its names do not follow from each other")
            return
        thing = f"layer {found.chain_id}"
        if found.parent is not None and found.parent not in self._reach.layers:
            yield finding("parent-missing", f"it stands on layer {found.parent.short}", thing)
        if not found.path.is_dir():
            yield finding("tree-missing", f"there is no {layer.TREE}", thing)
            return
        for entry in folder.iterdir():
            if entry.name not in _LAYER:
                stranger = str(entry.relative_to(self._store.home))
                yield Finding("unknown-file", stranger, path=stranger)
        if self._full:
            yield from self._tree(found, needed, path)

    def _tree(self, found: Snapshot, needed: tuple[str, ...], path: str) -> Iterator[Finding]:
        store = self._store
        changes = trees.examine(found, idmap=store.idmap, userxattr=store.userxattr)
        if changes and not (found.folder / layer.HEADERS).exists():
            compared = self._imported(found)
            if compared is not None:
                changes = compared
            elif not self._was_built_here(found):
                what = "its tar was made elsewhere, and the blob it came in is not here"
                yield Finding("unverifiable", f"layer {found.chain_id}", what, needed, path)
                return
        for change in changes:
            what = f"/{change.path}" if change.path else ""
            if change.was or change.now:
                what += f": was {change.was}, is {change.now}" if change.was else f": {change.now}"
            thing = f"layer {found.chain_id}"
            yield Finding(change.damage, thing, what.removeprefix(": "), needed, path)

    def _was_built_here(self, found: Snapshot) -> bool:
        """True when an image has it as a plain layer without a blob: its tar is of our making."""
        images = (self._reach.parts(digest) for digest in self._reach.owners.values())
        return found.diff_id not in self._reach.blobs and any(
            found.chain_id in parts.chains
            and found.diff_id in (descriptor.digest for descriptor in parts.layers)
            for parts in images
        )

    def _needed_by_name(self, name: str) -> tuple[str, ...]:
        for thing, owners in self._needed.items():
            if thing.startswith(f"layer sha256:{name}"):
                return tuple(owners)
        return ()

    # ------------------------------------------------------------ blobs

    def _blobs(self) -> Iterator[Finding]:
        files = sorted(self._store.content.files())
        for number, file in enumerate(files):
            if self._full:
                self._on_progress(number, len(files), f"blob {file.name[:12]}")
            yield from self._blob(file)
        if self._full:
            self._on_progress(len(files), len(files), "blobs")

    def _blob(self, file: Path) -> Iterator[Finding]:
        path = str(file.relative_to(self._store.home))
        try:
            digest = Digest(f"sha256:{file.name}")
            info = file.lstat()
        except ValueError:
            yield Finding("unknown-file", path, path=path)
            return
        except FileNotFoundError:
            return
        if not stat.S_ISREG(info.st_mode):
            yield self._about_blob("blob-not-a-file", digest, "it is no plain file")
            return
        if (mode := stat.S_IMODE(info.st_mode)) & 0o177:
            yield Finding("open-to-others", f"blob {digest}", _modes(mode, 0o600), (), path)
        if self._full:
            try:
                self._store.content.verify(digest)
            except BlobDamaged as error:
                yield self._about_blob("blob-changed", digest, f"hashes to {error.found.short}")
            except (OSError, StoreError) as error:
                yield self._about_blob("blob-changed", digest, f"cannot be read: {error}")

    def _about_blob(self, damage: str, digest: Digest, what: str) -> Finding:
        needed = tuple(self._needed.get(f"blob {digest}", ()))
        path = os.path.relpath(self._store.content.path(digest), self._store.home)
        return Finding(damage, f"{_KINDS.get(damage, 'blob')} {digest}", what, needed, path)

    # ------------------------------------------------------------ what nobody misses

    def _unreferenced(self) -> Iterator[Finding]:
        reach = self._reach
        cached = {at for _, chain in reach.cache for at in reach.below(chain)}
        for key, chain in reach.cache:
            if chain not in reach.layers:
                yield Finding("stale-row", f"cache: {key}", f"layer {chain.short} is not there")
        for parts in reach.untagged():
            yield Finding("unreferenced", f"image {parts.digest}", "no name, no notebook")
        for chain in reach.layers.keys() - cached:
            if f"layer {chain}" not in self._needed:
                yield Finding("unreferenced", f"layer {chain}", reach.layers[chain].created_by)


def _modes(found: int, wanted: int) -> str:
    return f"mode {found:04o}, not {wanted:04o}"
