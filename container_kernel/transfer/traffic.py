"""Traffic: how far a pull or push is, for whoever shows it; and the way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import RegistryError
from ..record import record

if TYPE_CHECKING:
    from ..oci.spec import Descriptor
    from ..oci.tar_reader import Stream


@record
class Moved:
    """How far it is. ``finished`` is the blob that was just completed, if one was."""

    verb: str
    blobs: int
    of_blobs: int
    bytes: int
    of_bytes: int
    finished: Descriptor | None = None


OnTraffic = Callable[[Moved], None]


class Traffic:
    """Adds up what several threads move."""

    def __init__(self, on_traffic: OnTraffic | None) -> None:
        self._tell = on_traffic or (lambda _: None)
        self._lock = threading.Lock()
        self._verb = ""
        self._blobs = self._of_blobs = self._bytes = self._of_bytes = 0
        self._is_stopped = False

    def begin(self, verb: str, blobs: int, total: int) -> None:
        """Say what is to come."""
        self._verb, self._of_blobs, self._of_bytes = verb, blobs, total

    def expect(self, size: int) -> None:
        """So many bytes more will travel."""
        with self._lock:
            self._of_bytes += size

    def moved(self, count: int) -> None:
        """So many bytes went by.

        Raises:
            RegistryError: another thread failed, and all are to stop.
        """
        if self._is_stopped:
            raise RegistryError("stopped, since another layer failed")
        with self._lock:
            self._bytes += count
            self._say()

    def finished(self, blob: Descriptor) -> None:
        """One blob is whole, where it was to go."""
        with self._lock:
            self._blobs += 1
            self._say(blob)

    def stop(self) -> None:
        """Let every thread end at its next bytes."""
        self._is_stopped = True

    def end(self) -> None:
        """Say where it ended."""
        with self._lock:
            self._say()

    def reading(self, source: Stream) -> Stream:
        """The same stream, counted."""
        return _Counted(source, self)

    def _say(self, finished: Descriptor | None = None) -> None:
        self._tell(
            Moved(
                self._verb,
                self._blobs,
                self._of_blobs,
                self._bytes,
                self._of_bytes,
                finished,
            )
        )


class _Counted:
    def __init__(self, source: Stream, traffic: Traffic) -> None:
        self._source = source
        self._traffic = traffic

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._traffic.moved(len(data))
        return data
