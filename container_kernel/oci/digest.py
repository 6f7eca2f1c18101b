"""Digest: the name of some bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Self

from ..record import record

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@cache  # a module that is not there is looked for anew each time
def _sha256() -> Callable[[bytes], Any]:
    # As the standard library's random does: hashlib loads OpenSSL, 4 ms, worth it for files only.
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # since Python 3.12
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]
        except ImportError:
            from hashlib import sha256
    found: Callable[[bytes], Any] = sha256
    return found


@record(order=True)
class Digest:
    """The name of some bytes, ``sha256:<64 lower-case hex digits>``."""

    text: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.text):
            raise ValueError(f"not a sha256 digest: {self.text!r}")

    def __eq__(
        self, other: object
    ) -> bool:  # as any record, but quickly: stores have sets of these
        return isinstance(other, Digest) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Name ``data``."""
        return cls("sha256:" + _sha256()(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 hexadecimal digits."""
        return self.text[7:]

    @property
    def short(self) -> str:
        """Enough of it for a human eye."""
        return self.text[:19]

    def __str__(self) -> str:
        return self.text


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """Name the file system that results from stacking ``diff_ids``, base first.

    Two images that share their first n layers share their n-th chain ID, so a snapshot committed
    under it is reused by both. A chain of one layer is named by that layer's diff ID alone; each
    later layer hashes the text ``"<chain so far> <diff ID>"``, as the OCI image spec requires.

    Raises:
        ValueError: the list is empty: an empty file system has no chain ID.
    """
    if not diff_ids:
        raise ValueError("chain_id needs at least one diff ID")
    chain, *rest = diff_ids
    for diff_id in rest:
        chain = extend_chain(chain, diff_id)
    return chain


def extend_chain(parent: Digest | None, diff_id: Digest) -> Digest:
    """Name the file system made of the one named ``parent`` with one more layer on top."""
    return diff_id if parent is None else Digest.of(f"{parent} {diff_id}".encode())
