"""Records: the magics that explain, lock and verify what build cells made."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build import lock as locks
from ..build import lock_roots
from ..display import layers, reasons, verdict
from ..errors import BadArguments, CellError, CommandFailed, LockBroken, NoBase
from . import staleness

if TYPE_CHECKING:
    from ..build.history import Entry
    from ..build.lock import Lock
    from ..workbench import Workbench
    from .magics import Command
    from .verbs import Context


def why(command: Command, context: Context) -> None:
    """``%why [CELL]``."""
    workbench = context.workbench
    if workbench.current is None:
        raise NoBase("there are no steps yet")
    known = explained(workbench, command.args.word(), workbench.current)
    context.screen.show({"text/plain": reasons.text(known)})


def explained(workbench: Workbench, which: str | None, stage: str | None = None) -> list[Entry]:
    """What is known of the steps of ``stage`` (of all), or of those that ``which`` names.

    That is a step's number, the id of its cell, or words of its title.

    Raises:
        BadArguments: it names no step.
    """
    history = workbench.ledger.history
    if history is None:
        raise CellError("this kernel was told of no notebook, so there are no earlier runs of it")
    found = [entry for entry in history.present() if stage in (None, entry["stage"])]
    if which is None:
        return found
    meant = [e for e in found if which in (str(e["number"]), e["cell"]) or which in e["title"]]
    if not meant:
        titles = ", ".join(f"{entry['number']} ({entry['title']})" for entry in found)
        raise BadArguments(f"no step {which!r}", hint=f"steps are: {titles or 'none yet'}")
    return meant


def stale(command: Command, context: Context) -> None:
    """``%stale``."""
    workbench = context.workbench
    if workbench.notebook is None:
        raise CellError("this kernel was told of no notebook, so there are no outputs to look at")
    for name in workbench.stage_names:
        workbench.image(name, on_event=context.screen.on_event, cancel=context.cancel)
    found = staleness.find(workbench.notebook, layers.data(workbench.stages))
    context.screen.show({"text/plain": staleness.text(found)})


def lock(command: Command, context: Context) -> None:
    """``%lock``."""
    notebook = context.workbench.notebook
    if notebook is None:
        raise CellError("this kernel was told of no notebook, so there is no place for a lock")
    made = context.workbench.lock(on_event=context.screen.on_event, cancel=context.cancel)
    lock_roots.note(context.workbench.store, notebook, made)
    context.screen.show({"text/plain": write(made, notebook)})


def write(made: Lock, notebook: Path) -> str:
    """Write the lock beside ``notebook``; in words, what it holds and what changed."""
    path = locks.path_of(notebook)
    text = made.to_text()
    is_new = write_whole(path, text)
    steps = [step for stage in made.stages.values() for step in stage.steps]
    count = sum(len(step.inputs) for step in steps)
    how = "written" if is_new else "is as it was"
    return (
        f"{path.name} {how}: {len(steps)} step{'s' * (len(steps) != 1)}, {count} packages and files"
    )


def write_whole(path: Path, text: str) -> bool:
    """Write a file beside a notebook, or that notebook, whole; False if it says that already.

    Raises:
        LockBroken: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        if path.exists() and path.read_bytes() == text.encode():
            return False
        draft.write_text(text, encoding="utf-8")
        draft.rename(path)
        return True
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise LockBroken(
            f"{path.name} cannot be written: {error.strerror}",
            hint="move away what is there, or make its folder writable, and lock again",
        ) from error


def verify(command: Command, context: Context) -> None:
    """``%verify``."""
    from .verifying import verify as build_again

    screen = context.screen
    found = build_again(
        context.workbench,
        on_event=screen.on_event,
        cancel=context.cancel,
        note=lambda line: screen.stream("stdout", line),
    )
    data = found.to_json()
    bundle: dict[str, Any] = {"text/plain": verdict.text(data)}
    if command.args["json"]:
        bundle["application/json"] = data
    screen.show(bundle)
    if not found.is_reproducible:
        raise CommandFailed("the notebook did not give the same image again", 1)
