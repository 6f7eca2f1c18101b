"""Lines: ``%undo``, ``%checkout``, ``%branch`` and ``%diff``: a session's environments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..build.environments import Environments, Side
from ..build.line import Entry, Line
from ..display import contrast, markup
from ..errors import BadArguments, CellError, NoBase
from . import images

if TYPE_CHECKING:
    from ..build.events import Image
    from ..workbench import Workbench
    from .magics import Command
    from .verbs import Context

_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
NOW = "now"


def line(workbench: Workbench) -> Line:
    """The session's line, with what was built since it was asked for last."""
    found = workbench.line
    if found is None:
        found = workbench.line = Line(workbench.store, workbench.notebook)
    for stage, title, progress in workbench.past:
        found.add(stage, title, workbench.make(progress))
    workbench.past.clear()
    return found


def frozen(workbench: Workbench, stage: str | None, image: Image) -> None:
    """A freeze is the newest environment of its stage; the branch that is checked out has it."""
    name, known = stage or workbench.current or "", line(workbench)
    if known.at(name) is None and (built := workbench.stages[name].image):
        known.add(name, "", built)
    known.add(name, "%freeze", image)
    if (branch := known.checked_out.get(name)) and name in workbench.away:
        known.name(branch, image)


def _stage(context: Context) -> str:
    if context.workbench.current is None:
        raise NoBase("there is no environment yet")
    return context.workbench.current


def _here(context: Context) -> Entry:
    """The environment the session is in."""
    stage, known = _stage(context), line(context.workbench)
    found = known.at(stage)
    return found or known.add(stage, "", _now(context))


def _now(context: Context) -> Image:
    """The image that run cells run on."""
    away = context.workbench.away.get(_stage(context))
    return away or _built(context, None)


def _built(context: Context, stage: str | None) -> Image:
    """The image of what a stage's cells say."""
    return context.workbench.image(stage, on_event=context.screen.on_event, cancel=context.cancel)


def undo(command: Command, context: Context) -> None:
    """``%undo``."""
    stage, now = _stage(context), _here(context)
    before = line(context.workbench).before(stage)
    if before is None:
        raise CellError(
            "nothing was built or frozen in this session that could be undone",
            hint="%checkout goes to any image: a tag, a digest, a branch",
        )
    _go(context, before.image, "%undo went back")
    line(context.workbench).current[stage] = before.number
    _tell(context, f"back to @{before.number} ({before.image.digest.short}){_made_by(before)}; "
          f"%checkout @{now.number} goes forward again")  # fmt: skip


def _made_by(entry: Entry) -> str:
    return f", {_title(entry)}" if entry.title else ""


def _title(entry: Entry) -> str:
    return entry.title.replace("\n", " ")


def checkout(command: Command, context: Context) -> None:
    """``%checkout [ENV]``."""
    wanted, workbench = command.args.word(), context.workbench
    stage, here = _stage(context), _here(context)
    known = line(workbench)
    if wanted is None:
        _tell(context, _listing(context))
        return
    if wanted in workbench.stage_names:
        workbench.use(wanted)
        workbench.away.pop(wanted, None)
        image = _built(context, wanted)
        _renew(context, wanted, image, "%checkout asks for it")
        entry = known.add(wanted, "", image)
        _tell(
            context, f"on @{entry.number} ({image.digest.short}): what the cells of {wanted} build"
        )
        return
    image = _find(wanted, context)
    _go(context, image, "%checkout asks for it")
    known.checked_out[stage] = wanted if wanted in known.branches() else None
    entry = known.add(stage, f"%checkout {wanted}", image)
    _tell(context, f"on @{entry.number} ({image.digest.short}) until a build cell is run; "
          f"@{here.number} was before")  # fmt: skip


def _listing(context: Context) -> str:
    workbench, known = context.workbench, line(context.workbench)
    rows = [
        (
            "*" if known.current.get(one.stage) == one.number else "",
            f"@{one.number}",
            one.stage,
            one.image.digest.short,
            _title(one),
        )
        for one in known.entries
    ]
    where = "; away from what its cells build" if _stage(context) in workbench.away else ""
    return f"{markup.columns(rows, '<><<<')}\nthe session is in stage {_stage(context)}{where}"


def _go(context: Context, image: Image, reason: str) -> None:
    """Have the cells that follow run on ``image``."""
    stage = _stage(context)
    _renew(context, stage, image, reason)
    if image.digest == _built(context, None).digest:
        context.workbench.away.pop(stage, None)
    else:
        context.workbench.away[stage] = image


def _renew(context: Context, stage: str, image: Image, reason: str) -> None:
    """End a session that cannot go along: one on an image that the new one does not extend."""
    live = context.workbench.lives.get(stage)
    if live is not None:
        extended = [layer.chain_id for layer in image.layers]
        if live.chain_id not in extended or live.chain_id == image.chain_id:
            context.workbench.lives.renew(stage, reason)


def branch(command: Command, context: Context) -> None:
    """``%branch [NAME]``."""
    name, known = command.args.word(), line(context.workbench)
    stage, here = _stage(context), _here(context)
    if name is None:
        rows = [
            ("*" if one == _on(context) else "", one, digest.short)
            for one, digest in known.branches().items()
        ]
        mark = "" if _on(context) else "*"
        rows.insert(0, (mark, stage, f"{here.image.digest.short}, what the cells build")
                    if stage not in context.workbench.away
                    else (mark, stage, "what the cells build"))  # fmt: skip
        _tell(context, markup.columns(rows, "<<<"))
        return
    if not _BRANCH.fullmatch(name) or name in (NOW, *context.workbench.stage_names):
        raise BadArguments(
            f"{name!r} cannot be the name of a branch",
            hint="take letters, digits and . _ -, and not a stage's name",
        )
    known.name(name, here.image)
    _tell(context, f"{name} is @{here.number} ({here.image.digest.short})")


def _on(context: Context) -> str | None:
    stage = _stage(context)
    if stage not in context.workbench.away:
        return None
    return line(context.workbench).checked_out.get(stage)


def diff(command: Command, context: Context) -> None:
    """``%diff [A] [B] [PATH]``."""
    *names, path = (*command.args.words, None)
    if names and names[-1].startswith("/"):
        path = names.pop()
    if len(names) > 2:
        raise BadArguments(f"%diff compares two environments, found {len(names)}")
    before = _side(names[0], context) if names else _last(context)
    after = _side(names[1] if len(names) == 2 else NOW, context)
    known = Environments(context.workbench.host, context.workbench.store)
    if path:
        context.screen.show(contrast.unified(known.lines(before, after, path)))
        return
    found = known.compare(before, after)
    context.screen.show(contrast.bundle(found, with_data=command.args["json"]))


def _last(context: Context) -> Side:
    """What was before the last build step; where nothing was, the image under the session."""
    here = _here(context)
    before = line(context.workbench).before(here.stage) or here
    return Side(f"@{before.number}", before.image)


def _side(name: str, context: Context) -> Side:
    if name != NOW:
        return Side(name, _find(name, context))
    live = context.workbench.lives.get(_stage(context))
    if live is None:
        return Side(NOW, _now(context))
    store = context.workbench.store  # it may be kept on an image that is not the newest
    image = images.image(store, live.image) if live.image else _now(context)
    return Side(NOW, image, live)


def _find(name: str, context: Context) -> Image:
    """The image that ``name`` means.

    Raises:
        CellError: it means none.
    """
    workbench, known = context.workbench, line(context.workbench)
    if entry := known.find(name):
        return entry.image
    if name in workbench.stage_names:
        return _built(context, name)
    if digest := known.branches().get(name):
        return images.image(workbench.store, digest)
    trail = workbench.stage().trail.known
    if name.isdecimal() and 0 < int(name) <= len(trail):
        return workbench.make(trail[int(name) - 1][1])
    return images.image(workbench.store, images.find(workbench.store, name))


def _tell(context: Context, text: str) -> None:
    context.screen.show({"text/plain": text})


VERBS = {"undo": undo, "checkout": checkout, "branch": branch, "diff": diff}
