"""Magics: is this cell build steps, commands, or code for the inner kernel?

A cell is judged by its text alone. It is ours only when its first line that is not blank or a
comment says so; text that merely contains one of our names (in a string, after a bracket, under
somebody else's cell magic) goes to the inner kernel untouched. A magic of ours among code is
refused, because half a cell cannot be a layer.
"""

from __future__ import annotations

import re

from ..build.step import Base, Items, Step, Use
from ..errors import BadArguments, CellError, UnknownMagic
from ..record import field, record
from . import foreign, steps
from .arguments import Arguments, nearest, read, suggestion
from .commands import GROUPS, MAGICS, group
from .declaring import Magic

__all__ = ["BuildCell", "Cell", "Command", "CommandCell", "RunCell", "parse"]


@record
class BuildCell:
    """A cell that changes an image.

    ``restart`` is whether the session that runs is to be replaced; None leaves it to us.
    """

    items: tuple[Base | Step, ...]
    restart: bool | None = None


@record
class Command:
    """One command magic: ``image save`` is a name, ``body`` is a cell magic's."""

    name: str
    args: Arguments = field(default_factory=Arguments)
    body: str | None = None
    line: str = ""


@record
class CommandCell:
    """A cell that asks us for something."""

    commands: tuple[Command, ...]


@record
class RunCell:
    """A cell for the inner kernel, untouched."""


Cell = BuildCell | CommandCell | RunCell

_MOVES = ("undo", "checkout", "branch")
_LEAD = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*")
_CALL = re.compile(r"(%%?)([A-Za-z_][\w-]*)")
_HELP = re.compile(r"(?:\?{1,2}(%%?[\w-]+(?: \w+)?)|(%%?[\w-]+(?: \w+)?)\?{1,2})\s*")
_AMONG = re.compile(
    r"^[ \t]*(?:(%)({})|(%%)({}))(?![\w-])".format(
        "|".join(sorted({m.name.split()[0] for m in MAGICS.values() if not m.is_cell})),
        "|".join(m.name for m in MAGICS.values() if m.is_cell),
    ),
    re.MULTILINE,
)


def parse(code: str, *, inner_magics: bool = True) -> Cell:
    """What the cell ``code`` means.

    Args:
        code: the cell's text.
        inner_magics: the inner kernel has magics of its own (it is IPython); a name that is not
            ours and not nearly ours is then left to it.

    Raises:
        CellError: the cell is ours and wrong, or has one of our magics in the middle of code.
    """
    if "%" not in code:  # most cells
        return RunCell()
    start = _LEAD.match(code).end()  # type: ignore[union-attr]  # it matches the empty string
    if asked := _HELP.fullmatch(code, start):
        return _help(asked[1] or asked[2], inner_magics)
    call = _CALL.match(code, start)
    if call is None:
        return _code(code)
    signs, name = call.groups()
    if signs == "%%":
        return _cell_magic(code, call.end(), name, inner_magics)
    if name in GROUPS or ((magic := MAGICS.get(name)) and not magic.is_cell):
        return _line_magics(code.replace("\r\n", "\n"))
    _refuse_unknown(signs, name, inner_magics)
    return _code(code)


def build_items(code: str) -> Items | Use | None:
    """What a cell means to someone who only builds; None when that is nothing.

    Raises:
        CellError: as `parse` does.
    """
    cell = parse(code)
    if isinstance(cell, CommandCell):
        used = [command.args.words[0] for command in cell.commands if command.name == "use"]
        return Use(used[-1]) if used else None
    return cell.items if isinstance(cell, BuildCell) else None


def is_for_live_sessions(code: str) -> bool:
    """Whether a cell moves a session to and fro: a notebook run as a whole passes over it."""
    try:
        cell = parse(code)
    except CellError:  # it is told of when the cell is run
        return False
    return isinstance(cell, CommandCell) and any(one.name in _MOVES for one in cell.commands)


def _code(code: str) -> RunCell:
    """A run cell, unless a magic of ours stands in it where a statement could."""
    for match in _AMONG.finditer(code):
        if foreign.is_statement(code, match.start()):
            sign, name = match[1] or match[3], match[2] or match[4]
            raise _among_code(sign + name, code.count("\n", 0, match.start()) + 1)
    return RunCell()


def _among_code(called: str, number: int) -> BadArguments:
    return BadArguments(
        f"{called} on line {number} stands among code", hint=f"give {called} a cell of its own"
    )


def _refuse_unknown(signs: str, name: str, inner_magics: bool) -> None:
    """Return if the inner kernel is to judge; raise if the name can only be a mistake."""
    theirs = foreign.CELL_MAGICS if signs == "%%" else foreign.LINE_MAGICS
    if name in theirs and name not in MAGICS:
        if inner_magics:
            return
        hint = "this magic is IPython's: put `%pip ipykernel` into a build cell to have it"
        raise UnknownMagic(signs + name, hint=hint)
    known = {m.name.split()[0]: m.sign.split()[0] for m in MAGICS.values()}
    if name in known:
        if not (inner_magics and name in theirs):  # %run FILE is IPython's, %%run is ours
            raise UnknownMagic(signs + name, hint=f"write {known[name]}, or see %help")
    elif near := _nearly_ours(name, list(known), inner_magics):
        hint = f"write {' or '.join(known[one] for one in near)}, or see %help"
        raise UnknownMagic(signs + name, hint=hint)
    elif not inner_magics:
        raise UnknownMagic(signs + name, hint="run %help to see the magics there are")


def _nearly_ours(name: str, known: list[str], inner_magics: bool) -> list[str]:
    """The ones of ``known`` that ``name`` may be a slip for.

    Extensions bring magics of their own (%lprun, %dotenv), so where there may be some a slip is
    only what is very near and begins alike.
    """
    near = nearest(name, known, 0.65 if inner_magics else 0.5)
    return [one for one in near if one[0] == name[0] or not inner_magics]


def _help(called: str, inner_magics: bool) -> CommandCell | RunCell:
    """``%pip?`` as a command."""
    name = called.lstrip("%")
    if name in MAGICS or name in GROUPS:
        return CommandCell((Command("help", Arguments((name,)), line=called),))
    _refuse_unknown(called[: -len(name)], name.split()[0], inner_magics)
    return RunCell()


def _cell_magic(code: str, end: int, name: str, inner_magics: bool) -> Cell:
    magic = MAGICS.get(name)
    if magic is None or not magic.is_cell:
        _refuse_unknown("%%", name, inner_magics)
        return RunCell()
    lines = _logical(code[end:].replace("\r\n", "\n"))
    head, consumed = lines[0]
    body = code[end:].replace("\r\n", "\n").split("\n", consumed)[consumed:]
    arguments = read(magic, head)
    text = body[0].strip("\n") if body else ""
    if not text.strip() and not arguments.words:
        raise BadArguments(f"%%{name} has an empty body", hint="write what it does below it")
    if magic.is_build:
        restart = steps.wants_restart(magic, arguments)
        return BuildCell((steps.step(magic, arguments, text + "\n"),), restart)
    return CommandCell((Command(name, arguments, text + "\n", f"%%{name}{head}".rstrip()),))


def _line_magics(code: str) -> BuildCell | CommandCell:
    """A cell whose lines are all ours, and all of one sort."""
    items: list[Base | Step] = []
    commands: list[Command] = []
    restart: bool | None = None
    number = 1
    for text, height in _logical(code):
        line = text.strip()
        if line and not line.startswith("#"):
            magic, rest = _called(line, number)
            arguments = read(magic, rest)
            if magic.is_build:
                items.append(steps.step(magic, arguments, None))
                wanted = steps.wants_restart(magic, arguments)
                restart = restart if wanted is None else wanted
            else:
                commands.append(Command(magic.name, arguments, None, line))
            if items and commands:
                raise BadArguments(
                    f"build magics and {(commands[0].line).split()[0]} are in one cell",
                    hint="give the build magics a cell of their own",
                )
            if isinstance(items[-1] if items else None, Base) and len(items) > 1:
                raise BadArguments(
                    f"%base on line {number} is not the first in its cell",
                    hint="begin a new cell with it: a base begins a stage",
                )
        number += height
    return BuildCell(tuple(items), restart) if items else CommandCell(tuple(commands))


def _called(line: str, number: int) -> tuple[Magic, str]:
    """The magic a line calls, and the text of its arguments."""
    call = _CALL.match(line)
    if call is None:
        raise BadArguments(
            f"line {number} is code among magics: {line.splitlines()[0]}",
            hint="give the magics a cell of their own",
        )
    signs, name = call.groups()
    rest = line[call.end() :]
    if name in GROUPS and signs == "%":
        return _second_word(name, rest)
    magic = MAGICS.get(name)
    if magic is None or signs == "%%" or magic.is_cell:
        if magic and magic.is_cell:
            raise BadArguments(
                f"%%{name} on line {number} is not the first line of its cell",
                hint=f"give %%{name} a cell of its own",
            )
        _refuse_unknown(signs, name, inner_magics=True)
        raise _among_code(signs + name, number)
    if rest[:1].strip():
        raise BadArguments(f"{signs + name}{rest.split()[0]} is not a magic: a space is missing")
    return magic, rest


def _second_word(name: str, rest: str) -> tuple[Magic, str]:
    word, *_ = rest.split(maxsplit=1) or [""]
    if magic := MAGICS.get(f"{name} {word}"):
        return magic, rest.lstrip()[len(word) :]
    verbs = group(name)
    what = f"has no command {word!r}" if word else "needs a command"
    raise BadArguments(
        f"%{name} {what}: {', '.join(verbs)}", hint=suggestion(word, verbs) if word else None
    )


def _logical(code: str) -> list[tuple[str, int]]:
    """Lines, those that end in a backslash joined with the next; and how many each was."""
    result: list[tuple[str, int]] = []
    parts: list[str] = []
    for line in code.split("\n"):
        bare = line.rstrip("\\")
        parts.append(line)
        if (len(line) - len(bare)) % 2 and not parts[0].lstrip().startswith("#"):
            parts[-1] = line[:-1]
            continue
        result.append((" ".join(parts), len(parts)))
        parts = []
    if parts:
        result.append((" ".join(parts), len(parts)))
    return result
