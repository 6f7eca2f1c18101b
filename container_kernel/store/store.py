"""Store: the folder where one user's images live."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import ImageError, StoreError
from ..oci.digest import Digest, chain_id
from ..oci.idmap import IdMap
from ..oci.spec import Descriptor, ImageConfig, Manifest, MediaType
from .content import ContentStore
from .index import Index
from .shelf import Shelf

VERSION = 1


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

    Raises:
        StoreError: the folder cannot be written, belongs to somebody else, is of a newer
            version, or its trees were written with other ids than this process has.
    """

    def __init__(self, home: Path, idmap: IdMap, *, userxattr: bool) -> None:
        _open_folder(home, idmap)
        super().__init__(home, idmap, userxattr=userxattr)
        self.content = ContentStore(home / "content")
        self.content.create()
        self.index = Index(home / "index.db")
        self.tags = Tags(self.index)
        self.snapshots.sweep()

    def close(self) -> None:
        """Close the index; everything else needs no goodbye."""
        self.index.close()

    def cache_folder(self, name: str) -> Path:
        """A download cache shared by all notebooks; in no layer, may be emptied any time."""
        folder = self.home / "downloads" / name
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        root = self.idmap.to_disk(0)
        os.chown(folder, root, root)
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
            return tagged
        text = reference.removeprefix("sha256:")
        if len(text) < 6 or not set(text) <= set("0123456789abcdef"):
            return None
        if len(text) == 64:
            digest = Digest(f"sha256:{text}")
            return digest if self.content.has(digest) and self._is_image(digest) else None
        blobs = (blob.digest for blob in self.content.walk() if blob.digest.hex.startswith(text))
        found = {digest for digest in blobs if self._is_image(digest)}
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


def _open_folder(home: Path, idmap: IdMap) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = home.stat().st_uid
        if owner != os.geteuid():
            raise StoreError(
                f"the store {home} belongs to another user",
                hint="set CONTAINER_KERNEL_HOME to a folder of your own",
            )
        home.chmod(0o700)
        _check_version(home, idmap)
    except OSError as error:
        raise StoreError(
            f"the store {home} cannot be written: {error.strerror}",
            hint="set CONTAINER_KERNEL_HOME to a folder you can write",
        ) from error


def _check_version(home: Path, idmap: IdMap) -> None:
    file = home / "store.json"
    ours = {"version": VERSION, "ids": _describe_ids(idmap)}
    if not file.exists():
        fresh = home / f".store.json.{os.getpid()}.{time.monotonic_ns()}"
        fresh.write_text(json.dumps(ours))
        fresh.rename(file)
        return
    found = json.loads(file.read_text())
    if found["version"] > VERSION:
        raise StoreError(
            f"the store {home} is of version {found['version']}, this program knows {VERSION}",
            hint="upgrade container-kernel, or set CONTAINER_KERNEL_HOME to another folder",
        )
    if found["ids"] != ours["ids"]:
        raise StoreError(
            f"the files of the store {home} belong to other ids ({found['ids']}) than "
            f"this session has ({ours['ids']})",
            hint="set CONTAINER_KERNEL_HOME to another folder, or give back the id range",
        )


def _describe_ids(idmap: IdMap) -> str:
    if idmap.is_identity:
        return "as in the image"
    return "one id" if idmap.squash else "subordinate ids"


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
