"""Verbs: what each command magic does, in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import help
from .magics import Command

if TYPE_CHECKING:
    from ..build.cancel import Cancel
    from ..workbench import Workbench
    from .cells import Screen


@dataclass(frozen=True)
class Context:
    """What a verb works with."""

    workbench: Workbench
    screen: Screen
    cancel: Cancel


def run(command: Command, context: Context) -> None:
    """Do what ``command`` says."""
    _VERBS[command.name](command, context)


def names(workbench: Workbench) -> dict[str, Callable[[str], Iterable[str]]]:
    """Where completion finds names."""
    return {"stage": lambda _: list(workbench.stages)}


def _help(command: Command, context: Context) -> None:
    context.screen.show({"text/plain": help.help(command.args.word())})


def _use(command: Command, context: Context) -> None:
    context.workbench.use(command.args.words[0])


_VERBS: dict[str, Callable[[Command, Context], None]] = {"help": _help, "use": _use}
