"""Packed: layers as they travel, compressed once and remembered.

What a layer is when packed is one small file per layer; its blob is in the store until it is
collected, and can be made again. Beside it lies what each registry is known to have of us, so that
another repository of the same registry can be asked to share it. Losing any of it costs time only.

    packed/<diff_id>.<compression>        digest and size of the blob
    packed/at/<registry>/<blob>           a repository that has the blob
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from ..errors import HostError
from ..oci.digest import Digest
from ..oci.spec import Descriptor, MediaType
from ..store.small_files import write_whole
from .compression import GZIP, NONE, ZSTD

if TYPE_CHECKING:
    from ..store.store import Store
    from .outgoing import Outgoing

COMPRESSIONS = (ZSTD, GZIP, NONE)
_TYPES = {ZSTD: MediaType.LAYER_ZSTD, GZIP: MediaType.LAYER_GZIP}
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6

Pack = Callable[[bytes | memoryview], bytes]


class Packed:
    """The packed layers of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.home / "packed"

    def known(self, diff_id: Digest, compression: str) -> Descriptor | None:
        """What the layer was when it was packed last; its blob may be gone."""
        try:
            found = json.loads(self._record(diff_id, compression).read_bytes())
            return Descriptor(_TYPES[compression], Digest(found["digest"]), int(found["size"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def make(self, image: Outgoing, layer: int, compression: str) -> Descriptor:
        """Pack a layer of ``image``; when this returns its blob is in the store.

        Raises:
            StoreError: the layer is damaged, or the disk full.
        """
        diff_id = image.config.diff_ids[layer]
        known = self.known(diff_id, compression)
        if known is not None and self._store.content.has(known.digest):
            return known
        pack, finish = _packers(compression)

        def write_to(out: BinaryIO) -> None:
            image.blob(layer, lambda piece: out.write(pack(piece)))
            out.write(finish())

        with closing(_Pipe(write_to)) as pipe:
            blob = self._store.content.put(pipe)
        described = Descriptor(_TYPES[compression], blob.digest, blob.size)
        said = {"digest": str(blob.digest), "size": blob.size}
        write_whole(self._record(diff_id, compression), json.dumps(said))
        return described

    def restore(self, image: Outgoing, layer: int) -> None:
        """Make the blob of a layer that is in the store as a tree only.

        Raises:
            StoreError: it cannot be made again: the blob was a compressed one, and is gone.
        """
        known = image.manifest.layers[layer]

        def write_to(out: BinaryIO) -> None:
            image.blob(layer, out.write)

        with closing(_Pipe(write_to)) as pipe:
            self._store.content.put(pipe, expected=known.digest, size=known.size)

    def remember(self, registry: str, path: str, digest: Digest) -> None:
        """Keep that the repository ``path`` has the blob."""
        write_whole(self._place(registry, digest), json.dumps({"path": path}))

    def source(self, registry: str, digest: Digest) -> str | None:
        """A repository of ``registry`` that had the blob."""
        try:
            return str(json.loads(self._place(registry, digest).read_bytes())["path"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _record(self, diff_id: Digest, compression: str) -> Path:
        return self._folder / f"{diff_id.hex}.{compression}"

    def _place(self, registry: str, digest: Digest) -> Path:
        return self._folder / "at" / quote(registry, safe="") / digest.hex


def _packers(compression: str) -> tuple[Pack, Callable[[], bytes]]:
    """What packs pieces, and what ends the stream. The same bytes always pack the same way."""
    if compression == GZIP:
        gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
        return gzip.compress, gzip.flush
    try:
        import zstandard
    except ImportError:
        raise HostError(
            "layers are packed with zstd, which this Python cannot write",
            hint="install the zstandard package, or pack with gzip",
        ) from None
    # More than one thread changes nothing in what comes out; one or none would.
    threads = max(2, os.cpu_count() or 2)
    zstd = zstandard.ZstdCompressor(_ZSTD_LEVEL, write_checksum=True, threads=threads)
    stream = zstd.compressobj()
    return stream.compress, stream.flush


class _Pipe:
    """Reads what ``write_to`` writes in a thread of its own; its error comes at the end."""

    def __init__(self, write_to: Callable[[BinaryIO], None]) -> None:
        read_end, write_end = os.pipe()
        self._file = os.fdopen(read_end, "rb", buffering=0)
        self._error: BaseException | None = None

        def run() -> None:
            try:
                with os.fdopen(write_end, "wb", buffering=1 << 20) as out:
                    write_to(out)
            except BrokenPipeError:
                pass  # the reader gave up, and says why
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="pack")
        self._thread.start()

    def read(self, size: int, /) -> bytes:
        """The next bytes, none at the end."""
        data = self._file.read(size) or b""
        if not data:
            self._thread.join()
            if self._error is not None:
                raise self._error
        return data

    def close(self) -> None:
        """Let the writer end."""
        self._file.close()
        self._thread.join()
