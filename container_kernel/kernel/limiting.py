"""``%limits``, and what a cell is told of the limits it met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..display import limits as shown
from ..errors import BadArguments, CommandFailed, NoBase
from ..runtime.limits import NOT_HELD, fewer_files, how
from .limit_flags import LIMIT_FLAGS, asked

if TYPE_CHECKING:
    from ..runtime.cgroup import CgroupParent
    from ..runtime.container import Container
    from ..runtime.limits import Limits
    from ..runtime.live import Live
    from ..runtime.pressure import Hit
    from .magics import Command
    from .verbs import Context

_TAIL = 4000


def limits(command: Command, context: Context) -> None:
    """Show the limits of the live container, or set them.

    Raises:
        CellError: one of them is not allowed, or needs a new session that nobody asked for.
    """
    workbench, wanted = context.workbench, asked(command.args.flags)
    held = workbench.limits(wanted)
    stage = workbench.current
    live = workbench.lives.get(stage) if stage else None
    if wanted:
        if live is not None:
            _set(live, stage or "", held, context, restart=command.args["restart"])
        workbench.set_limits.update(wanted)
        if note := unheld(wanted, held, workbench.host.runtime.cgroup):
            context.screen.stream("stderr", note)
    elif command.args["restart"]:
        raise BadArguments("--restart of %limits needs a limit", hint="write %limits --shm 1g")
    running = live.container if live is not None else None
    used = shown_use(live) if live is not None and running is not None else {}
    words = how(held, workbench.host.runtime.cgroup)
    context.screen.show(shown.bundle(held, words, used, with_data=command.args["json"]))


def _set(live: Live, stage: str, held: Limits, context: Context, *, restart: bool) -> None:
    """Hold what runs to it; where that takes a new session, only if that loses nothing."""
    if live.limit(held):
        return
    lives = context.workbench.lives
    if restart or not context.has_run(live):
        lives.renew(stage, "its limits changed")
        return
    raise BadArguments(
        "this limit takes a new session, which loses the variables of this one",
        hint="run it before the first run cell, or add --restart",
    )


def shown_use(live: Live) -> dict[str, float]:
    """How much of each limit a running container uses, by field."""
    from ..runtime import meter

    container = live.container
    if container is None or container.poll() is not None:
        return {}
    used = meter.read(container)
    found: dict[str, float | None] = {
        "memory_bytes": used.memory_bytes,
        "pids": used.pids,
        "shm_bytes": meter.shm_bytes(container),
        "scratch_bytes": live.scratch_bytes,
        "open_files": meter.most_files(container),
        "swap_bytes": used.swap_bytes,
    }
    return {name: value for name, value in found.items() if value is not None}


def unheld(wanted: Mapping[str, Any], held: Limits, cgroup: CgroupParent | None) -> str:
    """What is to be said of limits that were asked for and do not hold, or not as they should."""
    words = how(held, cgroup)
    lines = []
    for flag in LIMIT_FLAGS:
        if flag.field not in wanted or (flag.field == "open_files" and not fewer_files(held)):
            continue
        by = words[flag.field]
        if by == NOT_HELD:
            lines.append(f"--{flag.name} is not in force on this host")
        elif ", " in by and (cgroup is None or not by.startswith("cgroup")):
            lines.append(f"--{flag.name} is held by {by}")
    return "".join(f"{line} (container-kernel doctor tells more)\n" for line in lines)


class Listening:
    """Passes text on and keeps its end, in whose words some limits show."""

    def __init__(self, on_text: Callable[[str, str], object]) -> None:
        self._on_text = on_text
        self.said = ""

    def __call__(self, name: str, text: str) -> None:
        self.said = (self.said + text)[-_TAIL:]
        self._on_text(name, text)


def explained(error: CommandFailed, container: Container, said: str) -> CommandFailed:
    """``error`` with the limits that ``container`` has met."""
    hits = container.pressure.hits(said)
    if not hits:
        return error
    hint = hints(hits).replace("%limits ", "")
    return CommandFailed(with_limits(error.message, hits), error.exit_code, hint=hint)


def with_limits(message: str, hits: Iterable[Hit]) -> str:
    """A message, with each limit that it does not name yet."""
    more = [hit.clause for hit in hits if hit.flag != "--memory" or "ran out of" not in message]
    return "; ".join([message, *more])


def hints(hits: Iterable[Hit]) -> str:
    """What raises the limits that were met."""
    return "; ".join(hit.hint for hit in hits)


def note(hits: Iterable[Hit]) -> str:
    """The lines a live cell gets beside its error."""
    return "".join(f"{hit.clause}: {hit.hint}\n" for hit in hits)


def need_stage(context: Context) -> str:
    """The current stage.

    Raises:
        NoBase: there is none.
    """
    stage = context.workbench.current
    if stage is None:
        raise NoBase("nothing runs yet")
    return stage
