"""Store: the folder where one user's images live."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError, StoreError
from ..oci.digest import Digest, chain_id
from ..oci.idmap import IdMap
from ..oci.spec import Descriptor, ImageConfig, Manifest, MediaType
from . import layer
from .content import ContentStore
from .disk import disk_errors
from .folder import open_folder
from .index import Index
from .places import DOWNLOADS
from .rebuild import open_index, rebuild
from .shelf import Shelf
from .snapshots import Snapshot

if TYPE_CHECKING:
    from .kept import Kept


class Tags:
    """Names of images: ``set``, ``get``, ``list``, ``remove``."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def set(self, name: str, digest: Digest) -> None:
        """Let ``name`` mean the manifest ``digest`` from now on."""
        self._index.set_tag(name, digest)

    def get(self, name: str) -> Digest | None:
        """What ``name`` means."""
        return self._index.tag(name)

    def list(self) -> dict[str, Digest]:
        """All names, sorted."""
        return self._index.tags()

    def remove(self, name: str) -> bool:
        """Forget ``name``; False when nobody knew it."""
        return self._index.remove_tag(name)


class Store(Shelf):
    """Content, snapshots and index of one folder, opened; created when it is not there.

    What a process that was killed left behind is put out of reach at once, and removed in a thread
    of its own. On a file system that cannot be written, images can be looked at and run.

    Raises:
        StoreError: the folder cannot be written, belongs to somebody else, is of a newer
            version, or its trees were written with other ids than this process has.
    """

    def __init__(self, home: Path, idmap: IdMap, *, userxattr: bool) -> None:
        self._notices: list[str] = []
        self.is_readonly = open_folder(home, idmap)
        with disk_errors(home):
            super().__init__(home, idmap, userxattr=userxattr)
            self.leases = self.snapshots.leases
            self.content = ContentStore(home / "content", self.leases.hold)
            self.index = self._open_index()
        self.tags = Tags(self.index)

    def _open_index(self) -> Index:
        path = self.home / "index.db"
        if self.is_readonly:
            return Index(path, is_readonly=True)
        self.content.create()
        index, told = open_index(path, self.snapshots, self.leases)
        self._notices += [told] if told else []
        self._sweep()
        return index

    def take_notices(self) -> list[str]:
        """What the user is to be told: what was found broken and was mended. Each is told once."""
        notices, self._notices = self._notices, []
        return notices

    def rebuild_index(self) -> str:
        """Make the index again from what the store holds; says what was saved."""
        with self.leases.shut():
            self.index.close()
            self.index, told = rebuild(self.index.path, self.snapshots)
        self.tags = Tags(self.index)
        return told

    @cached_property
    def kept(self) -> Kept:
        """The tree that this process keeps though it is no layer."""
        from .kept import Kept  # for those who have one

        return Kept(self.snapshots)

    def close(self) -> None:
        """Close the index and let go of what this process needed."""
        if "kept" in self.__dict__:
            self.kept.let_go()
        self.index.close()
        self.leases.close()

    def _sweep(self) -> None:
        self.content.sweep()
        self.snapshots.sweep()
        self.leases.sweep()
        if any(self.snapshots.trash.iterdir()):
            empty = self.snapshots.empty_trash
            threading.Thread(target=empty, name="trash", daemon=True).start()

    def remember_layer(self, key: str, snapshot: Snapshot, seconds: float) -> None:
        """Say, beside the layer too, that it answers the cache key ``key``."""
        self.index.remember_layer(key, snapshot.chain_id, seconds)
        layer.add_key(snapshot, key, seconds)

    def cache_folder(self, name: str) -> Path:
        """A download cache shared by all notebooks; in no layer, may be emptied any time."""
        self.leases.hold(f"cache {name}")
        folder = self.home / DOWNLOADS / name
        with disk_errors(folder):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            root = self.idmap.to_disk(0)
            os.chown(folder, root, root)
            os.utime(folder)  # when it was used last
        return folder

    def put_image(self, config: ImageConfig, layers: Sequence[Descriptor]) -> Digest:
        """Store the config and a manifest that names it and ``layers``; return its digest."""
        config_bytes = config.to_json()
        described = Descriptor(
            media_type=MediaType.CONFIG, digest=Digest.of(config_bytes), size=len(config_bytes)
        )
        manifest = Manifest(config=described, layers=tuple(layers)).to_json()
        for data in (config_bytes, manifest):
            self.content.put(data)
        return Digest.of(manifest)

    def manifest(self, digest: Digest) -> Manifest:
        """The manifest of that digest, re-hashed while it is read."""
        return Manifest.from_json(self.content.read(digest))

    def image_config(self, manifest: Manifest) -> ImageConfig:
        """The config a manifest names, re-hashed while it is read."""
        return ImageConfig.from_json(self.content.read(manifest.config.digest))

    def find_image(self, reference: str) -> Digest | None:
        """The manifest digest of a tag, a digest, or the unique beginning of one.

        In ``name:tag@sha256:…`` the digest decides; the name is for people.
        """
        reference = reference.rpartition("@")[2]
        tagged = self.tags.get(reference) or self.tags.get(f"{reference}:latest")
        if tagged:
            self.content.has(tagged)
            return tagged
        text = reference.removeprefix("sha256:")
        if len(text) < 6 or not set(text) <= set("0123456789abcdef"):
            return None
        if len(text) == 64:
            digest = Digest(f"sha256:{text}")
            return digest if self.content.has(digest) and self._is_image(digest) else None
        blobs = (blob.digest for blob in self.content.walk() if blob.digest.hex.startswith(text))
        found = {digest for digest in blobs if self._is_image(digest) and self.content.has(digest)}
        if len(found) > 1:
            raise ImageError(f"{reference} is ambiguous", hint="give more digits of the digest")
        return found.pop() if found else None

    def image_chain(self, config: ImageConfig) -> Digest:
        """The chain ID of the whole image ``config``.

        Raises:
            StoreError: its layers are not all in the store.
        """
        whole = chain_id(config.diff_ids)
        self.snapshots.chain(whole)
        return whole

    @contextmanager
    def building(self, key: str, wait: Callable[[], None]) -> Iterator[None]:
        """Hold the cache key ``key``: no other process builds the same step meanwhile.

        ``wait`` is called between tries; it may sleep, and raises to give up. The host kernel
        frees the key when its holder dies.
        """
        folder = self.home / "building"
        with disk_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / key[:32]
        while True:
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_same_file(lock, path):
                    break
            except BlockingIOError:
                wait()
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    def _is_image(self, digest: Digest) -> bool:
        try:
            self.manifest(digest)
        except (ImageError, StoreError):
            return False
        return True


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
