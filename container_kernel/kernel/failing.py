"""``%shell``, ``%retry``, ``%discard``: look at what a failed step has left, and go on from there.

Who looks is root of the image, as the step was, without its network. What they write is in a
scratch that ends with the command: the half-built tree stays as the failed command left it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..build import failures
from ..display import failures as shown
from ..errors import CellError
from ..runtime.relaxed import Relaxed
from ..runtime.wish import Wish
from .pump import pump

if TYPE_CHECKING:
    from .magics import Command
    from .verbs import Context

AS_THE_STEP = Relaxed(as_root=True)
"""What a look is allowed beyond the profile of run cells: less than the step itself had."""
_MOST_FILES = 15


def shell(command: Command, context: Context) -> None:
    """Run a command beside the live session, or in what the failed step left.

    Raises:
        CellError: no step has failed, or there is no command and nothing to show without.
        CommandFailed: it ended with another status than 0.
    """
    if command.args["failed"]:
        _look(command, context)
        return
    workbench, stage = context.workbench, command.args["stage"]
    live = workbench.live(stage, on_event=context.screen.on_event, cancel=context.cancel)
    container = live.exec(command.args.words, {})
    try:
        pump(container, context.screen.stream, context.cancel)
    finally:
        container.delete()


def _look(command: Command, context: Context) -> None:
    workbench, words = context.workbench, command.args.words
    failure = failures.last(workbench.store)
    if not words:
        files = failure.newest(_MOST_FILES + 1)
        context.screen.show(shown.bundle(failure.title, files, _MOST_FILES))
        return
    wish = Wish(
        limits=workbench.limits(),
        relaxed=workbench.config.relaxed() | AS_THE_STEP,
        home=workbench.config.user_home,
    )
    live = workbench.fresh(failure.image, wish)
    try:
        container = live.start(words, {}, cwd=failure.workdir)
        timeout_s = live.limits.timeout_s
        pump(container, context.screen.stream, context.cancel, timeout_s=timeout_s)
    finally:
        live.close()


def retry(command: Command, context: Context) -> None:
    """Run the cell again whose build failed last, from the clean parent of its step.

    Raises:
        CellError: none has failed, or it fails again.
    """
    if context.again is not None:
        context.again(context.screen, context.cancel)
    elif context.workbench.store.kept.tree is not None:  # what was stale was built, for a run cell
        context.workbench.image(on_event=context.screen.on_event, cancel=context.cancel)
    else:
        raise CellError("no build cell has failed", hint="run the cell itself")


def discard(command: Command, context: Context) -> None:
    """Throw away what the failed step left.

    Raises:
        CellError: there is nothing.
    """
    store = context.workbench.store
    failure = failures.last(store)
    store.kept.let_go()
    context.screen.show({"text/plain": f"discarded what {failure.title} had written"})
