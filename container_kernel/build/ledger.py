"""Ledger: what is noted about the steps of one notebook, and what holds them to its lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import LockDrift
from ..oci.digest import Digest
from .events import About, Layer
from .history import Decision, History
from .journal import Journal, base_key
from .step import MEANING

if TYPE_CHECKING:
    from .graph import Parts
    from .lock import Lock, LockedStage, LockedStep
    from .resolved import Input
    from .stages import Stage


class Ledger:
    """The store's journal, the notebook's history if it has one, and its lock if it is held to it.

    Where ``must_match`` is off, what the lock names is installed, and may give another layer.
    """

    def __init__(
        self,
        journal: Journal,
        history: History | None = None,
        lock: Lock | None = None,
        *,
        must_match: bool = True,
    ) -> None:
        self.journal = journal
        self.history = history
        self._lock = lock
        self._must_match = must_match

    def decided(
        self, about: About, key: str, parts: Parts, found: Layer | None, *, use_cache: bool
    ) -> None:
        """A step was looked for."""
        if self.history is not None:
            note = "" if use_cache else "the cache was off"
            where = about.stage, about.step_id, about.number, about.title
            self.history.note(Decision(*where, key, parts, found is not None, note))

    def made(self, key: str, parts: Parts, diff_id: Digest, inputs: Sequence[Input]) -> None:
        """A step was built."""
        self.journal.write(key, parts, diff_id, inputs)

    def has_made(self, key: str, diff_id: Digest) -> bool:
        """Whether this store built that layer for that key."""
        return self.journal.inputs(key, diff_id) is not None

    def save(self) -> None:
        """Make what was noted last."""
        if self.history is not None:
            self.history.save()

    # ------------------------------------------------------------ the lock

    def locked(self, about: About, key: str, parts: Parts) -> LockedStep | None:
        """What the lock says of a step; None where nothing is locked.

        Raises:
            LockDrift: the lock does not know it.
        """
        stage = self.stage(about.stage)
        if stage is None:
            return None
        found = next((step for step in stage.steps if step.key == key), None)
        if found is None and self._must_match:
            self.decided(about, key, parts, None, use_cache=True)
            raise LockDrift(f"step {about.number} is not in the lock: {_unknown(about, stage)}")
        return found

    def check(self, about: About, locked: LockedStep | None, diff_id: Digest) -> None:
        """Compare what was built with what the lock names.

        Raises:
            LockDrift: it is another layer.
        """
        if locked is not None and self._must_match and locked.diff_id != diff_id:
            raise LockDrift(
                f"step {about.number} ({about.title}) made another layer than the lock names\n"
                f"  locked {locked.diff_id}\n  built  {diff_id}",
                hint="find out what differs: container-kernel verify NOTEBOOK",
            )

    def check_base(self, stage: Stage, chain_id: Digest) -> None:
        """Compare the base with what the lock names.

        Raises:
            LockDrift: it is another, or the lock does not know the stage.
        """
        locked = self.stage(stage.name)
        if locked is not None and self._must_match and locked.base_digest != chain_id:
            from . import resolved  # only to say what differs

            made = self.journal.inputs(base_key(chain_id), chain_id)
            other = resolved.drift(locked.base_inputs, made) if made is not None else ""
            raise LockDrift(
                f"the base {stage.base.reference} is not the one in the lock\n"
                f"  locked {locked.base} {locked.base_digest}\n  found  {chain_id}"
                + (f"\n  other packages: {other}" if other else ""),
                hint="load the image the notebook was built on (container-kernel image load), "
                "or write the lock anew: container-kernel lock NOTEBOOK",
            )

    def stage(self, name: str) -> LockedStage | None:
        """What the lock says of a stage; None where nothing is locked.

        Raises:
            LockDrift: the lock does not know it.
        """
        if self._lock is None:
            return None
        if name not in self._lock.stages:
            stages = ", ".join(self._lock.stages) or "none"
            raise LockDrift(f"the lock has no stage {name!r}; it has: {stages}")
        return self._lock.stages[name]


def _unknown(about: About, stage: LockedStage) -> str:
    titles = [step.title for step in stage.steps]
    for step in stage.steps:
        now = MEANING.get(step.kind)
        if step.title == about.title and step.meaning != now:
            made = f"the lock has it as version {step.meaning} of %{step.kind} makes it"
            return f"{about.title}\n  {made}, this program has version {now}"
    if about.title in titles:
        return f"{about.title} is there on other layers, or with other inputs; %why tells which"
    return f"{about.title}\n  the lock has: {', '.join(titles) or 'no steps'}"
