"""Reading typed fields out of a parsed JSON object, with a message that names the field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ImageError
from .digest import Digest
from .strict_json import refuse_lookalikes

_MAX_INTEGER = (1 << 63) - 1


class Fields:
    """A JSON object being taken apart: what nobody asked for is ``rest``."""

    def __init__(self, value: object, what: str, known: Iterable[str] = ()) -> None:
        if not isinstance(value, dict):
            raise ImageError(f"{what} is not an object")
        refuse_lookalikes(value, known, what)
        self.what = what
        self.rest: dict[str, Any] = dict(value)

    def take(self, key: str) -> Any:
        """The value, or None when it is absent or null."""
        return self.rest.pop(key, None)

    def text(self, key: str) -> str:
        """A string, empty when absent."""
        value = self.take(key)
        if value is not None and (not isinstance(value, str) or "\0" in value):
            self.refuse(key, "a string")
        return value or ""

    def needed(self, key: str) -> str:
        """A string that is there and not empty."""
        value = self.text(key)
        if not value:
            raise ImageError(f"{self.what}: {key} is missing")
        return value

    def number(self, key: str) -> int:
        """A whole number that is there and not negative."""
        value = self.take(key)
        if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
            self.refuse(key, "a size")
        return int(value)

    def flag(self, key: str) -> bool:
        """A boolean, false when absent."""
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false")
        return bool(value)

    def objects(self, key: str) -> list[Any]:
        """A list, empty when absent."""
        value = self.take(key)
        if value is not None and not isinstance(value, list):
            self.refuse(key, "a list")
        return value or []

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty when absent."""
        values = self.objects(key)
        if not all(isinstance(value, str) and "\0" not in value for value in values):
            self.refuse(key, "a list of strings")
        return tuple(values)

    def mapping(self, key: str) -> dict[str, str]:
        """An object whose values are strings, empty when absent."""
        value = self.take(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            self.refuse(key, "an object of strings")
        return dict(value)

    def digest(self, key: str) -> Digest:
        """A digest that is there."""
        return as_digest(self.text(key), f"{self.what}: {key}")

    def refuse(self, key: str, expected: str) -> None:
        """Raise: ``key`` is not what it must be."""
        raise ImageError(f"{self.what}: {key} is not {expected}")


def as_digest(text: object, what: str) -> Digest:
    """``text`` as a digest.

    Raises:
        ImageError: it is none, or of an algorithm other than sha256.
    """
    try:
        return Digest(text if isinstance(text, str) else "")
    except ValueError:
        shown = repr(text)[:100]
        raise ImageError(f"{what} is not a sha256 digest: {shown}") from None


def present(fields: dict[str, Any]) -> dict[str, Any]:
    """Only the fields that say something."""
    return {key: value for key, value in fields.items() if value}
