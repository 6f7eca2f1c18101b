"""``%isolation``: how much of it this host gives, and whether that is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BadArguments, UsageError

if TYPE_CHECKING:
    from .magics import Command
    from .verbs import Context


def run(command: Command, context: Context) -> None:
    """Show the level, or raise where it is less than required.

    Raises:
        IsolationTooWeak: this host gives less.
        BadArguments: neither of the two was asked for.
    """
    level = context.workbench.host.level
    words = command.args.words
    if words:
        if len(words) != 2 or words[0] != "require":
            raise BadArguments(
                f"%isolation takes nothing, or require LEVEL; found {' '.join(words)!r}",
                hint="write it like '%isolation require rootless'",
            )
        try:
            level.require(words[1])
        except UsageError as error:
            raise BadArguments(error.message, hint=error.hint) from None
        context.workbench.required = words[1]
    lacks = "".join(f"\n{lack}; {remedy}" for lack, remedy in level.lacks)
    context.screen.show({"text/plain": f"{level}{lacks}"})
