"""Where a tar goes while it is made: to a sink, or only into a hasher.

Everything is collected in blocks of one MiB, so that a thousand small files cost one hand-over. A
``TarHasher`` hashes one block in a second thread while the next is being filled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Self

from ..errors import StoreError
from .digest import Digest
from .tar_header import BLOCK, padding

_BLOCK_BYTES = 1 << 20
_SPARE_BLOCKS = 2
_END = bytes(2 * BLOCK)
_ZEROS = bytes(BLOCK)


class TarWriter:
    """Gives the tar to ``sink`` in big pieces, each valid only during its call."""

    def __init__(self, sink: Callable[[memoryview], object]) -> None:
        self._sink = sink
        self._block = memoryview(bytearray(_BLOCK_BYTES))
        self._used = 0
        self._written = 0

    def write(self, data: bytes) -> None:
        """Append ``data``; its length is a multiple of 512."""
        while data:
            if self._used == _BLOCK_BYTES:
                self._flush()
            piece = data[: _BLOCK_BYTES - self._used]
            self._block[self._used : self._used + len(piece)] = piece
            self._used += len(piece)
            data = data[len(piece) :]

    def write_content(self, fd: int, size: int) -> None:
        """Append the ``size`` bytes of the file ``fd`` and the padding after them.

        Raises:
            StoreError: the file is shorter, so somebody is writing to a tree being frozen.
        """
        left = size
        while left:
            if self._used == _BLOCK_BYTES:
                self._flush()
            room = self._block[self._used : min(self._used + left, _BLOCK_BYTES)]
            count = os.readv(fd, (room,))
            if not count:
                raise StoreError("a file became shorter while it was frozen")
            self._used += count
            left -= count
        gap = padding(size)
        self._block[self._used : self._used + gap] = _ZEROS[:gap]
        self._used += gap

    def finish(self) -> int:
        """End the tar; returns how many bytes it has."""
        self.write(_END)
        self._flush()
        return self._written

    def _flush(self) -> None:
        self._written += self._used
        self._block = self._hand_over(self._block, self._used)
        self._used = 0

    def _hand_over(self, block: memoryview, used: int) -> memoryview:
        """Pass a filled block on; returns the block to fill next."""
        self._sink(block[:used])
        return block


class TarHasher(TarWriter):
    """Keeps only the SHA-256 of the tar. The second thread starts with the first full block."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        super().__init__(self._sha256.update)
        self._full: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._full.put(None)
            self._thread.join()

    @property
    def digest(self) -> Digest:
        """The digest, once the ``with`` block is left."""
        return Digest("sha256:" + self._sha256.hexdigest())

    def _hand_over(self, block: memoryview, used: int) -> memoryview:
        if self._thread is None:
            if used < _BLOCK_BYTES:
                return super()._hand_over(block, used)
            self._thread = Thread(target=self._hash, name="tar-hasher", daemon=True)
            self._thread.start()
            for _ in range(_SPARE_BLOCKS):
                self._free.put(memoryview(bytearray(_BLOCK_BYTES)))
        self._full.put((block, used))
        return self._free.get()

    def _hash(self) -> None:
        while (item := self._full.get()) is not None:
            block, used = item
            self._sha256.update(block[:used])
            self._free.put(block)


class HeaderKeeper(TarHasher):
    """Also keeps the headers, one of ``headers`` for each entry: what a layer's files are.

    ``check`` is called for each block, and may raise: a hole of a terabyte is hashed for minutes.
    """

    def __init__(self, check: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.headers: list[bytes] = []
        self._check = check

    def _hand_over(self, block: memoryview, used: int) -> memoryview:
        self._check()
        return super()._hand_over(block, used)

    def write(self, data: bytes) -> None:
        """Append an entry's header."""
        self.headers.append(data)
        super().write(data)

    def finish(self) -> int:
        """End the tar; its end is no header."""
        written = super().finish()
        self.headers.pop()
        return written
