"""Content: blobs by digest, in one folder, shared by processes.

A blob is written under a name of its own, hashed on the way, synced, then renamed to its digest,
then the folder is synced. So a name that exists is whole and on disk, whoever wrote it, and a
process killed in between leaves only a file in ``ingest/`` that nobody will ever read.

    blobs/sha256/<64 digits>     the blobs, mode 0600
    ingest/<random>              blobs on their way in, locked by who writes them

A blob that was put, or that `has` saw, stays while this process lives: ``hold`` leases it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .. import syscalls
from ..errors import BlobDamaged, BlobNotFound, ImageError, StoreError, out_of_files
from ..oci.digest import Digest
from ..record import record
from .disk import disk_errors
from .leases import folder_lock, is_locked

if TYPE_CHECKING:
    from ..oci.tar_reader import Stream

_CHUNK_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@record
class Blob:
    """A blob that is in the store."""

    digest: Digest
    size: int


class ContentStore:
    """Blobs under ``root``. Every operation may run in several processes at once."""

    def __init__(self, root: Path, hold: Callable[[str], bool] = lambda name: True) -> None:
        self.root = root
        self._hold = hold
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"

    def create(self) -> None:
        """Make the folders, if they are not there yet."""
        for folder in (self.root, self.root / "blobs", self._blobs, self._ingest):
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700, parents=folder == self.root)
                folder.chmod(0o700)

    def put(
        self,
        source: bytes | Stream,
        *,
        expected: Digest | None = None,
        size: int | None = None,
    ) -> Blob:
        """Store the bytes of ``source``. When this returns, they are on disk under their digest.

        It does not matter whether they were there before; damaged ones are replaced.

        Raises:
            ImageError: the bytes do not have the ``expected`` digest or ``size``. At most
                ``size`` bytes and one are read. Nothing is stored.
            StoreError: the disk is full or failing. Nothing is stored.
        """
        if isinstance(source, bytes):
            _check(source, expected, size)
            digest = Digest.of(source)
            self._hold(lease(digest))
            if self._holds(digest, source):
                return Blob(digest, len(source))
            source = io.BytesIO(source)
        with disk_errors(self.root):
            return self._write(source, expected, size)

    def open(self, digest: Digest) -> io.BufferedReader:
        """The blob's bytes, which are not checked while you read them.

        Raises:
            BlobNotFound: no such blob.
            StoreError: something that is not a plain file has its name.
            HostError: this process can open no more files.
        """
        try:
            fd = syscalls.regular(os.open(self.path(digest), _OPEN))
        except FileNotFoundError:
            raise BlobNotFound(digest) from None
        except OSError as error:
            raise out_of_files(error) or _not_a_blob(digest) from error
        return os.fdopen(fd, "rb")

    def read(self, digest: Digest, *, limit: int = 4 << 20) -> bytes:
        """The whole blob, hashed again.

        Raises:
            BlobNotFound: no such blob.
            BlobDamaged: its bytes are not what its name says.
            ImageError: it is longer than ``limit`` bytes.
        """
        with self.open(digest) as blob:
            data = blob.read(limit + 1)
        if len(data) > limit:
            raise ImageError(f"blob {digest.short} is longer than {limit} bytes")
        if (found := Digest.of(data)) != digest:
            raise BlobDamaged(digest, found)
        return data

    def verify(self, digest: Digest) -> int:
        """Hash a stored blob of any length again; returns its size.

        Raises:
            BlobNotFound: no such blob.
            BlobDamaged: its bytes are not what its name says.
        """
        with self.open(digest) as blob:
            found = Digest("sha256:" + hashlib.file_digest(blob, "sha256").hexdigest())
            size = blob.tell()
        if found != digest:
            raise BlobDamaged(digest, found)
        return size

    def has(self, digest: Digest) -> bool:
        """True when the blob is there; its bytes are not looked at. It then stays."""
        is_new = self._hold(lease(digest))
        path = self.path(digest)
        if not path.is_file():
            return False
        if is_new:
            with suppress(OSError):
                os.utime(path)  # when it was used last
        return True

    def size(self, digest: Digest) -> int:
        """How many bytes the blob has.

        Raises:
            BlobNotFound: no such blob.
        """
        with self.open(digest) as blob:
            return os.fstat(blob.fileno()).st_size

    def delete(self, digest: Digest) -> None:
        """Forget the blob. Fine if it is not there."""
        self.path(digest).unlink(missing_ok=True)

    def walk(self) -> Iterator[Blob]:
        """Every blob, by its name; files of other names are passed over."""
        with suppress(FileNotFoundError), os.scandir(self._blobs) as entries:
            for entry in entries:
                with suppress(ValueError, FileNotFoundError):
                    digest = Digest(f"sha256:{entry.name}")
                    yield Blob(digest, entry.stat(follow_symlinks=False).st_size)

    def sweep(self) -> None:
        """Remove blobs on their way in whose writers are gone."""
        with suppress(FileNotFoundError), folder_lock(self._ingest, fcntl.LOCK_EX):
            for draft in self._ingest.iterdir():
                if not is_locked(draft):
                    draft.unlink(missing_ok=True)

    def files(self) -> Iterator[Path]:
        """Whatever lies where blobs lie."""
        with suppress(FileNotFoundError):
            yield from self._blobs.iterdir()

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._blobs / digest.hex

    def _holds(self, digest: Digest, data: bytes) -> bool:
        try:
            with self.open(digest) as blob:
                is_same = blob.read(len(data) + 1) == data
        except StoreError:
            return False
        if is_same:  # whoever renamed it may not have synced the folder yet
            _sync(self._blobs)
            with suppress(OSError):
                os.utime(self.path(digest))  # when it was used last
        return is_same

    def _write(self, source: Stream, expected: Digest | None, size: int | None) -> Blob:
        draft = self._ingest / os.urandom(16).hex()
        try:
            fd = self._open_draft(draft)
        except FileNotFoundError:
            self.create()
            fd = self._open_draft(draft)
        try:
            with os.fdopen(fd, "wb", buffering=0) as out:
                os.fchmod(fd, 0o600)
                blob = _copy(source, out, size)
                _compare(blob, expected, size)
                os.fsync(fd)
                self._hold(lease(blob.digest))
                self._publish(draft, self.path(blob.digest))  # locked until it has its name
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return blob

    def _open_draft(self, draft: Path) -> int:
        with folder_lock(self._ingest, fcntl.LOCK_SH):
            fd = os.open(draft, _CREATE, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def _publish(self, draft: Path, path: Path) -> None:
        is_new = not path.exists()
        os.replace(draft, path)
        try:
            _sync(self._blobs)
        except OSError:  # then it may or may not be there tomorrow: nobody is to find it
            if is_new:
                path.unlink(missing_ok=True)
            raise


def lease(digest: Digest) -> str:
    """What a lease calls the blob."""
    return f"blob {digest}"


def _copy(source: Stream, out: io.FileIO, size: int | None) -> Blob:
    sha256 = hashlib.sha256()
    count = 0
    while chunk := _chunk(source, None if size is None else size + 1 - count):
        sha256.update(chunk)
        count += len(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[out.write(rest) :]
    return Blob(Digest("sha256:" + sha256.hexdigest()), count)


def _chunk(source: Stream, left: int | None) -> bytes:
    try:
        return source.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
    except OSError as error:
        raise ImageError(f"a blob cannot be read: {error}") from error


def _check(data: bytes, expected: Digest | None, size: int | None) -> None:
    if expected is not None or size is not None:
        _compare(Blob(Digest.of(data), len(data)), expected, size)


def _compare(found: Blob, expected: Digest | None, size: int | None) -> None:
    name = f"blob {expected.short}" if expected else "the blob"
    if size is not None and found.size != size:
        amount = f"more than {size}" if found.size > size else str(found.size)
        raise ImageError(f"{name} has {amount} bytes, its descriptor says {size}")
    if expected is not None and found.digest != expected:
        raise ImageError(f"{name} has other bytes: they hash to {found.digest.short}")


def _not_a_blob(digest: Digest) -> StoreError:
    return StoreError(
        f"blob {digest.short} is not a plain file in the store",
        hint="run `container-kernel store check --repair`",
    )


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
