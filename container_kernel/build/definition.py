"""Definition: a base as plain data, one TOML file in ``images/`` or in a folder of the user's."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import CellError
from ..record import record
from .graph import definition_key


@record
class Definition:
    """A base as plain data: one file of ``images/`` or of the user's own folder."""

    name: str
    kind: str
    values: Mapping[str, object]

    @functools.cached_property
    def key(self) -> str:
        """What a base made from it is found by."""
        return definition_key(self.values)

    @property
    def epoch(self) -> int:
        """The time, in seconds since 1970, that new files get."""
        value = self.values.get("epoch", 0)
        if not isinstance(value, int):
            raise CellError(f"{self.name}: epoch must be a whole number of seconds")
        return value

    def words(self, key: str) -> list[str]:
        """A list of strings, empty when absent."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise CellError(f"{self.name}: {key} must be a list of strings")
        return value

    def word(self, key: str, default: str = "") -> str:
        """One string."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise CellError(f"{self.name}: {key} must be a string")
        return value


def definitions(folders: Sequence[Path], mentioning: str = "") -> dict[str, Definition]:
    """All definitions by name; a later folder wins over an earlier one.

    Files whose text does not have ``mentioning`` in it are passed over unread: to read TOML takes
    longer to load than all else that a base needs which is an image in the store.

    Raises:
        CellError: a file that is not TOML, or has no ``name`` and ``kind``.
    """
    found = {}
    for folder in folders:
        for file in _files(folder):
            try:
                mtime_ns = os.stat(file).st_mtime_ns
                is_meant = mentioning.encode() in _text(file, mtime_ns)
            except OSError as error:
                raise _unreadable(file, error) from error
            if is_meant:
                definition = _read_definition(file, mtime_ns)
                found[definition.name] = definition
    return found


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.name.endswith(".toml"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


@functools.lru_cache(maxsize=256)
def _text(file: str, mtime_ns: int) -> bytes:
    """What is in it; read again when it has changed (``mtime_ns`` tells)."""
    return Path(file).read_bytes()


@functools.lru_cache(maxsize=256)
def _read_definition(file: str, mtime_ns: int) -> Definition:
    """One definition."""
    import tomllib  # 4 ms, for those who start from a definition

    try:
        values = tomllib.loads(_text(file, mtime_ns).decode())
        return Definition(values["name"], values["kind"], values)
    except (ValueError, KeyError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str, error: Exception) -> CellError:
    return CellError(f"the base definition {file} cannot be read: {error}")
