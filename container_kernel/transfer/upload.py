"""Upload: a blob that goes to a registry in pieces, and goes on where the line broke."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import BlobDamaged, RegistryError
from ..oci.digest import Digest

if TYPE_CHECKING:
    from io import BufferedReader

    from ..oci.spec import Descriptor
    from .registry_http import Answer, Client

PIECE_BYTES = 16 << 20
_ARRIVED = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_OCTETS = {"Content-Type": "application/octet-stream"}


class Upload:
    """Sends ``source`` to the upload sessions that ``url`` opens."""

    def __init__(
        self,
        client: Client,
        url: str,
        descriptor: Descriptor,
        source: BufferedReader,
        on_sent: Callable[[int], object],
    ) -> None:
        self._client = client
        self._url = url
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._source = source
        self._on_sent = on_sent
        self._scope = f"repository:{client.path}:pull,push"
        self._failures = 0

    def send(self) -> None:
        """Send it. Where the registry lost part of it, that part is sent again.

        Raises:
            BlobDamaged: our own bytes are not what the descriptor says.
            RegistryError: it did not arrive.
        """
        found = Digest("sha256:" + hashlib.file_digest(self._source, "sha256").hexdigest())
        if found != self._digest:
            raise BlobDamaged(self._digest, found)
        while True:
            try:
                self._finish(self._pieces(self._open()))
                return
            except _SessionLost:
                self._fail()

    def _open(self) -> str:
        client = self._client
        with client.request("POST", self._url, scope=self._scope, body=b"") as answer:
            place = answer.headers.get("Location")
            if answer.status != 202 or not place:
                raise client.refused(answer, "the wish to upload")
            return place

    def _pieces(self, place: str) -> str:
        """All but the last piece; returns where to go on."""
        start = 0
        while self._size - start > PIECE_BYTES:
            piece = self._read(start)
            span = {"Content-Range": f"{start}-{start + len(piece) - 1}", **_OCTETS}
            try:
                answer = self._ask("PATCH", place, span, piece)
            except RegistryError:
                place, start = self._where(place)
                continue
            if answer.status == 416 or answer.status >= 500:
                place, start = self._where(place)
            elif answer.status in (202, 204):
                place, start = answer.headers.get("Location") or place, start + len(piece)
                self._on_sent(len(piece))
            elif answer.status in (400, 404):
                raise _SessionLost
            else:
                raise self._client.refused(answer, "part of an upload")
        self._start = start
        return place

    def _where(self, place: str) -> tuple[str, int]:
        """How much has arrived after all; that is one more failure."""
        self._fail()
        answer = self._ask("GET", place, {}, None)
        if answer.status != 204:
            raise _SessionLost
        arrived = _ARRIVED.fullmatch(answer.headers.get("Range", ""))
        last = int(arrived[1]) if arrived else 0
        return answer.headers.get("Location") or place, last + 1 if last else 0

    def _finish(self, place: str) -> None:
        """The last piece, and the digest of all."""
        sign = "&" if "?" in place else "?"
        tail = self._read(self._start)
        try:
            answer = self._ask("PUT", f"{place}{sign}digest={self._digest}", _OCTETS, tail)
        except RegistryError:
            raise _SessionLost from None
        if answer.status in (404, 408, 416, 429) or answer.status >= 500:
            raise _SessionLost
        if answer.status != 201 or not is_right(answer, self._digest):
            raise self._client.refused(answer, f"the blob {self._digest.short}")
        self._on_sent(len(tail))

    def _ask(self, method: str, place: str, headers: dict[str, str], body: bytes | None) -> Answer:
        """Once; how to go on after a failure is decided by what had arrived."""
        return self._client.request(
            method, place, headers=headers, body=body, scope=self._scope, tries=1
        ).settle()

    def _read(self, start: int) -> bytes:
        self._source.seek(start)
        return self._source.read(PIECE_BYTES)

    def _fail(self) -> None:
        self._failures += 1
        if self._failures >= self._client.tries:
            raise RegistryError(
                f"{self._client.registry} breaks off uploads again and again",
                hint="what arrived whole is kept there; push again to go on",
            )
        self._client.pause(self._failures)

    _start = 0


class _SessionLost(Exception):
    """The registry forgot an upload: begin again."""


def is_right(answer: Answer, digest: Digest) -> bool:
    """False when the registry says that it stored something else."""
    return answer.headers.get("Docker-Content-Digest", str(digest)) == str(digest)
