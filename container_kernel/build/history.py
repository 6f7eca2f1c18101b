"""History: how each step of a notebook was decided last, so that one can ask why.

For each step: the parts of its key, the run it has them since, what they were before, and whether
its layer was there. A run is one kernel's life or one command; one that finds everything as it was
writes nothing and is not counted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ..oci.digest import Digest
from ..record import record
from ..store.small_files import write_whole
from .graph import Parts
from .notebook_file import code_cells


@record
class Decision:
    """A step was found (a hit) or had to run."""

    stage: str
    step_id: str
    number: int
    title: str
    key: str
    parts: Parts
    is_hit: bool
    note: str = ""
    """What else made it a miss, where its key did not."""


Entry = dict[str, Any]
_KEPT = ("key", "title", "parts", "run", "time")


class History:
    """Of the notebook at ``notebook``, in the store at ``home``; read when first asked."""

    def __init__(self, home: Path, notebook: Path) -> None:
        self._path = home / "history" / f"{Digest.of(str(notebook).encode()).hex[:24]}.json"
        self._state: dict[str, Any] | None = None
        self._is_changed = False
        self._run = 1
        self._notebook = notebook
        self._noted: set[str] = set()

    @property
    def steps(self) -> dict[str, Entry]:
        """What is known of each step, by ``STAGE/CELL/NUMBER``; also of cells that are no more."""
        steps: dict[str, Entry] = self._load()["steps"]
        return steps

    def present(self) -> list[Entry]:
        """The steps of cells that are in the notebook, or were run just now."""
        cells = {identity for identity, _ in code_cells(self._notebook)}
        found = []
        for name, entry in self.steps.items():
            cell = name.removeprefix(f"{entry['stage']}/").rpartition("/")[0]
            if cell in cells or name in self._noted:
                found.append({**entry, "cell": cell})
        return sorted(found, key=lambda entry: (entry["stage"], entry["number"]))

    def note(self, one: Decision) -> None:
        """Take up a decision; `save` makes it last."""
        name = f"{one.stage}/{one.step_id}"
        self._noted.add(name)
        before = self.steps.get(name) or self._same_place(one)
        verdict = {"hit": one.is_hit, "note": one.note, "number": one.number}
        if before is not None and before["key"] == one.key:
            entry = before | verdict | {"title": one.title, "is_new": False}
            if one.is_hit and before["hit"] and entry == self.steps.get(name):
                return
        else:
            then = {"run": self._load()["run"] + 1, "time": int(time.time())}
            was = (
                {k: before[k] for k in ("key", "title", "parts", "run", "time")} if before else None
            )
            about = {"stage": one.stage, "key": one.key, "title": one.title, "parts": one.parts}
            entry = about | verdict | then | {"was": was, "is_new": True}
        self.steps[name] = entry
        self._is_changed = True

    def save(self) -> None:
        """Write down what changed, if anything did."""
        if self._is_changed:
            state = self._load()
            state["run"] = self._run
            write_whole(self._path, json.dumps(state))
            self._is_changed = False

    def _same_place(self, one: Decision) -> Entry | None:
        """The step that had this place, where cells have no ids to be known by."""
        if not one.step_id.startswith("text:"):
            return None
        return next(
            (
                e
                for e in self.steps.values()
                if (e["stage"], e["number"]) == (one.stage, one.number)
            ),
            None,
        )

    def _load(self) -> dict[str, Any]:
        if self._state is None:
            try:
                self._state = json.loads(self._path.read_text())
                assert isinstance(self._state["steps"], dict)
                assert isinstance(self._state["run"], int)
            except (OSError, ValueError, KeyError, TypeError, AssertionError):
                self._state = {"run": 0, "steps": {}}
            self._run = self._state["run"] + 1
        return self._state
