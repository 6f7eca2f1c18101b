"""Line: the environments that a session of a notebook was in, and the names of its branches.

Only live sessions have one. Each environment that build cells or ``%freeze`` made gets a number,
and remembers the one it followed; going back loses nothing of it. An environment that was checked
out holds for its stage until a build cell is run there, or the session ends: the notebook is what
its cells say. Branches are tags of the store, so what they name is kept as all that has a name.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import CellError
from ..oci.digest import Digest
from ..record import record
from ..store.store import Store
from .events import Image


@record
class Entry:
    """One environment of the session. ``before`` is the number of the one it followed."""

    number: int
    stage: str
    title: str
    image: Image
    before: int | None


class Line:
    """Of one session. By stage, ``current`` is the number of the environment it is in, and
    ``checked_out`` the branch that a `%freeze` moves on.
    """

    def __init__(self, store: Store, notebook: Path | None) -> None:
        self._store = store
        self._prefix = f"branches/{_name(notebook)}:"
        self.entries: list[Entry] = []
        self.current: dict[str, int] = {}
        self.checked_out: dict[str, str | None] = {}

    def add(self, stage: str, title: str, image: Image) -> Entry:
        """The session is in an environment of a stage: a new entry, or the one it had."""
        now = self.at(stage)
        for known in reversed(self.entries):
            if (known.stage, known.image.digest) == (stage, image.digest):
                self.current[stage] = known.number
                return known
        number = len(self.entries) + 1
        entry = Entry(number, stage, title, image, now.number if now else None)
        self.entries.append(entry)
        self.current[stage] = number
        return entry

    def at(self, stage: str) -> Entry | None:
        """The environment that a stage is in, once there was any."""
        number = self.current.get(stage)
        return self.entries[number - 1] if number else None

    def before(self, stage: str) -> Entry | None:
        """The environment that the current one of a stage followed."""
        now = self.at(stage)
        return self.entries[now.before - 1] if now and now.before else None

    def find(self, text: str) -> Entry | None:
        """The entry written as ``@3``; None if it is not written so.

        Raises:
            CellError: there is none of that number.
        """
        if not (text.startswith("@") and text[1:].isdecimal()):
            return None
        number = int(text[1:])
        if not 0 < number <= len(self.entries):
            known = f"@1 to @{len(self.entries)}" if self.entries else "none yet"
            raise CellError(f"no environment {text} in this session", hint=f"there are: {known}")
        return self.entries[number - 1]

    # Branches

    def branches(self) -> dict[str, Digest]:
        """The branches of the notebook."""
        tags = self._store.tags.list().items()
        start = len(self._prefix)
        return {name[start:]: digest for name, digest in tags if name.startswith(self._prefix)}

    def name(self, branch: str, image: Image) -> None:
        """Have ``branch`` be ``image``, whatever it was."""
        self._store.tags.set(self._prefix + branch, image.digest)


def _name(notebook: Path | None) -> str:
    if notebook is None:
        return "session"
    return f"{Digest.of(str(notebook).encode()).hex[:12]}"
