"""Download: a blob that comes from a registry, and goes on where the line broke."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from ..oci.spec import Descriptor
    from .registry_http import Answer, Client

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
# So many bytes without trouble, and earlier trouble is forgotten.
_GOOD_BYTES = 1 << 20


class Download:
    """A blob on its way. When the line breaks, the rest is asked for; the caller hashes it all."""

    def __init__(self, client: Client, url: str, descriptor: Descriptor) -> None:
        self._client = client
        self._url = url
        self._what = f"blob {descriptor.digest.short}"
        self._size = descriptor.size
        self._scope = f"repository:{client.path}:pull"
        self._at = 0
        self._failures = 0
        self._good_at = 0
        self._answer: Answer | None = None
        self.was_resumed = False

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end."""
        while True:
            self._client.check()
            try:
                if self._answer is None:
                    self._answer = self._open()
                data = self._answer.read(min(size, self._size + 1 - self._at))
                if not data and self._at < self._size:
                    raise HTTPError(f"{self._what} ended early")
            except HTTPError as error:
                self._break(error)
                continue
            self._at += len(data)
            if self._at - self._good_at >= _GOOD_BYTES:
                self._failures, self._good_at = 0, self._at
            return data

    def close(self) -> None:
        """Give the connection up."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _break(self, error: HTTPError) -> None:
        self.close()
        self._failures += 1
        if self._failures >= self._client.tries:
            raise self._client.unreachable(error) from None
        self._client.pause(self._failures)

    def _open(self) -> Answer:
        if not self._at:
            return self._whole()
        self.was_resumed = True
        span = {"Range": f"bytes={self._at}-"}
        answer = self._client.request("GET", self._url, headers=span, scope=self._scope)
        if answer.status == 206:
            given = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if given and int(given[1]) == self._at and given[3] in ("*", str(self._size)):
                return answer
        elif answer.status == 200:
            return self._skip(answer)
        answer.close()
        return self._skip(self._whole())

    def _whole(self) -> Answer:
        answer = self._client.request("GET", self._url, scope=self._scope)
        if answer.status != 200:
            raise self._client.refused(answer, f"a request for {self._what}")
        return answer

    def _skip(self, answer: Answer) -> Answer:
        """Pass over what we have already."""
        left = self._at
        while left and (data := answer.read(min(left, 1 << 20))):
            left -= len(data)
        return answer
