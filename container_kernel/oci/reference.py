"""Reference: a name for an image: a repository plus a tag or a digest."""

from __future__ import annotations

import re
from typing import Self

from ..errors import ImageError
from ..record import record
from .digest import Digest

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_NAME = 255
_HEX = frozenset("0123456789abcdef")


@record
class Reference:
    """``[registry/]path[:tag][@digest]``, by the grammar registries and other tools use.

    No registry is assumed where none is named.
    """

    registry: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def repository(self) -> str:
        """The name without tag and digest."""
        return f"{self.registry}/{self.path}" if self.registry else self.path

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """The same, with the tag ``latest`` if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.registry, self.path, "latest")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it.

        Raises:
            ImageError: it is no reference; the message says which part is wrong.
        """
        rest, at, digest_text = text.partition("@")
        digest = None
        if at:
            try:
                digest = Digest(digest_text)
            except ValueError:
                raise _bad(text, "what follows @ is not a sha256 digest") from None
        head, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _bad(text, "a tag has letters, digits and ._- only, 128 at most")
        name = head + slash + last
        first, slash, path = name.partition("/")
        # As everywhere: a first part is a registry if it could not be a folder of one.
        is_registry = slash and (
            first == "localhost" or first != first.lower() or any(sign in first for sign in ".:[")
        )
        registry, path = (first, path) if is_registry else ("", name)
        if registry and not _DOMAIN.fullmatch(registry):
            raise _bad(text, f"{registry!r} is no registry")
        if not _PATH.fullmatch(path):
            raise _bad(text, "a name has lower-case letters and digits, with ._- between them")
        if len(path) == 64 and set(path) <= _HEX and not registry:
            raise _bad(text, "64 hexadecimal digits are a digest")
        if len(name) > _MAX_NAME:
            raise _bad(text, f"a name has at most {_MAX_NAME} characters")
        return cls(registry, path, tag, digest)


def _bad(text: str, why: str) -> ImageError:
    return ImageError(f"{text[:300]!r} is no image reference: {why}")
