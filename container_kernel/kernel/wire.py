"""Jupyter's wire format: frames to messages and back, signed and checked.

Only what must be read is parsed: the header always, the other three dicts when somebody asks. The
bytes of every frame are kept, so what is passed on is passed on byte for byte.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache

from ..record import record, replace
from .connection import CHANNELS as CHANNELS
from .connection import ConnectionInfo as ConnectionInfo
from .objects import Dict as Dict
from .objects import object_in
from .objects import parse_object as parse_object

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.4"
_HISTORY = 1 << 16


class MalformedMessage(Exception):
    """Frames that are no message, or not one from who it should be from."""


class Signer:
    """Signs and checks the four dicts of a message with one key."""

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        name = scheme.removeprefix("hmac-")
        self._hmac = hmac.new(key, digestmod=getattr(hashlib, name)) if key else None

    def sign(self, dicts: Iterable[bytes]) -> bytes:
        """The signature of the dicts' bytes; empty when there is no key."""
        if self._hmac is None:
            return b""
        copy = self._hmac.copy()
        copy.update(b"".join(dicts))
        return copy.hexdigest().encode()

    def is_right(self, signature: bytes, dicts: Iterable[bytes]) -> bool:
        """Whether ``signature`` is the dicts' own, compared in constant time."""
        return self._hmac is None or hmac.compare_digest(signature, self.sign(dicts))


class History:
    """The signatures seen so far: a message that comes twice is a replay."""

    def __init__(self, size: int = _HISTORY) -> None:
        self._size = size
        self._seen: dict[bytes, None] = {}

    def add(self, signature: bytes) -> bool:
        """Note ``signature``; False if it was there already. An empty one (no key) is not noted."""
        if signature in self._seen:
            return False
        if signature:
            self._seen[signature] = None
            if len(self._seen) > self._size:
                for old in list(self._seen)[: self._size // 10]:
                    del self._seen[old]
        return True


@record
class Message:
    """One message as it came: where from, its four dicts as bytes, its buffers."""

    identities: tuple[bytes, ...]
    signature: bytes
    dicts: tuple[bytes, bytes, bytes, bytes]
    buffers: tuple[bytes, ...]
    header: Dict

    @classmethod
    def parse(cls, frames: Sequence[bytes], signer: Signer) -> Message:
        """Check and take apart the frames of one message.

        Raises:
            MalformedMessage: no delimiter, too few frames, a wrong signature, or a header that is
                not a JSON object with a msg_id and a msg_type.
        """
        try:
            start = frames.index(DELIMITER)
        except ValueError:
            raise MalformedMessage("no delimiter") from None
        signature, *rest = frames[start + 1 : start + 2] or [b""]
        rest = list(frames[start + 2 :])
        if len(rest) < 4:
            raise MalformedMessage("too few frames")
        dicts = (rest[0], rest[1], rest[2], rest[3])
        if not signer.is_right(signature, dicts):
            raise MalformedMessage("wrong signature")
        return cls(
            tuple(frames[:start]), signature, dicts, tuple(rest[4:]), _checked_header(dicts[0])
        )

    def check(self) -> None:
        """Be sure that whoever it is passed on to can read it, and so answers.

        Raises:
            MalformedMessage: one of the dicts is no JSON object.
        """
        found = [{} if data == b"{}" else object_in(data) for data in self.dicts[1:]]
        for name, value in zip(("parent header", "metadata", "content"), found, strict=True):
            if value is None:
                raise MalformedMessage(f"its {name} is not a JSON object")
        self.__dict__.update(metadata=found[1], content=found[2])  # each is read once

    @property
    def msg_id(self) -> str:
        """The header's own id."""
        return str(self.header["msg_id"])

    @property
    def msg_type(self) -> str:
        """The header's type."""
        return str(self.header["msg_type"])

    @cached_property
    def metadata(self) -> Dict:
        """The metadata; empty if it is not an object."""
        return parse_object(self.dicts[2])

    @cached_property
    def content(self) -> Dict:
        """The content; empty if it is not an object."""
        return parse_object(self.dicts[3])

    def with_metadata(self, more: Dict) -> Message:
        """The same message with ``more`` in its metadata."""
        header, parent, _, content = self.dicts
        return replace(self, dicts=(header, parent, dump({**self.metadata, **more}), content))

    @property
    def parent_id(self) -> str:
        """The msg_id of the parent, empty if there is none."""
        return _parent_id(self.dicts[1])


@lru_cache(maxsize=16)
def _parent_id(parent: bytes) -> str:
    # All outputs of a cell name the same parent, in the same bytes.
    msg_id = parse_object(parent).get("msg_id", "")
    return msg_id if isinstance(msg_id, str) else ""


def _checked_header(frame: bytes) -> Dict:
    header = parse_object(frame)
    for key in ("msg_id", "msg_type"):
        if not isinstance(header.get(key), str):
            raise MalformedMessage(f"header without {key}")
    if b"\\u" in frame and not _can_be_written(header):
        raise MalformedMessage("half a character in its header")
    return header


def _can_be_written(header: Dict) -> bool:
    """Whether a kernel can name it as a parent: one that cannot would never answer, nor go on."""
    try:
        json.dumps(header, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def date(at: float | None = None) -> str:
    """Now, or ``at`` in seconds since the epoch, as messages say it."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).isoformat()[:-6] + "Z"


def dump(value: object) -> bytes:
    """JSON as jupyter_client writes it; a lone surrogate stays an escape, NaN becomes null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


class Session:
    """Writes the messages of one kernel session."""

    def __init__(self, signer: Signer, username: str = "kernel") -> None:
        self.id = os.urandom(16).hex()
        self.signer = signer
        self._username = username
        self._count = 0

    def frames(
        self,
        msg_type: str,
        content: object,
        parent: bytes = b"{}",
        *,
        metadata: Dict | None = None,
        msg_id: str | None = None,
    ) -> list[bytes]:
        """The signed frames of a new message, from the delimiter on."""
        self._count += 1
        header = {
            "msg_id": msg_id or f"{self.id}_{os.getpid()}_{self._count}",
            "msg_type": msg_type,
            "username": self._username,
            "session": self.id,
            "date": date(),
            "version": PROTOCOL_VERSION,
        }
        dicts = [dump(header), parent, dump(metadata or {}), dump(content)]
        return [DELIMITER, self.signer.sign(dicts), *dicts]
