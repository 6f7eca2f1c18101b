"""Help: what the table of magics says, as text and as completions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping

from ..record import record
from . import foreign
from .arguments import nearest
from .commands import GROUPS, MAGICS, group
from .declaring import Flag, Magic

WIDTH = 80
Source = Callable[[str], Iterable[str]]
"""Names of one kind (``stage``, ``tag``, ``base``, ``path``) that begin with a prefix."""

_CALLED = re.compile(r"[ \t]*(%%?)([\w-]*)")
_ASKED = re.compile(r"\s*\??(%%?)([\w-]+(?: \w+)?)")


@record
class Completion:
    """What Tab offers for the characters from ``start`` to ``end``."""

    matches: tuple[str, ...]
    start: int
    end: int

    def kinds(self) -> list[dict[str, object]]:
        """What each match is, as IPython tells it and JupyterLab shows it."""
        place = {"start": self.start, "end": self.end, "signature": ""}
        return [
            {**place, "text": text, "type": "magic" if text.startswith("%") else "<unknown>"}
            for text in self.matches
        ]


def help(name: str | None = None) -> str:
    """The help of one magic (``pip``, ``%pip``, ``image save``), or the list of all."""
    if not name:
        return _all()
    bare = name.strip().lstrip("%")
    if magic := MAGICS.get(bare):
        return _one(magic)
    if bare in GROUPS:
        return "\n\n".join(_one(MAGICS[f"{bare} {verb}"]) for verb in group(bare))
    near = " or ".join(MAGICS[name].sign for name in nearest(bare, list(MAGICS)))
    return f"no magic {bare!r}" + (f": is it {near}?" if near else "; see %help")


def help_at(code: str, cursor: int) -> str | None:
    """The help of the magic on the line of the cursor; None when there is none of ours."""
    line = code[code.rfind("\n", 0, cursor) + 1 :].partition("\n")[0]
    if not (asked := _ASKED.match(line)):
        return None
    words = asked[2].split()
    for name in (" ".join(words), words[0]):
        if name in MAGICS or name in GROUPS:
            return help(name)
    return None


def _all() -> str:
    width = max(len(magic.sign) for magic in MAGICS.values())
    parts = []
    for title, is_build in (("Cells that build the image:", True), ("Commands:", False)):
        rows = [m for m in MAGICS.values() if m.is_build is is_build]
        parts += [title, *(f"  {m.sign:<{width}}  {m.summary}" for m in rows), ""]
    return "\n".join([*parts, "Every other cell runs in the container. %NAME? shows more of one."])


def _one(magic: Magic) -> str:
    import textwrap  # 1 ms, for those who ask

    lines = [*_wrapped(magic.usage, "    "), "", magic.summary]
    if magic.details:
        lines += ["", *textwrap.wrap(magic.details, WIDTH)]
    if magic.flags:
        width = max(len(_flag(flag)) for flag in magic.flags)
        lines += ["", *(f"  {_flag(flag):<{width}}  {flag.help}" for flag in magic.flags)]
    example = textwrap.indent(magic.example, "  ")
    return "\n".join([*lines, "", "Example:", example])


def _wrapped(usage: str, indent: str) -> list[str]:
    """A usage line, broken between its parts only."""
    import textwrap

    glued = re.sub(r"\[[^\]]*\]", lambda part: part[0].replace(" ", "\0"), usage)
    lines = textwrap.wrap(
        glued, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\0", " ") for line in lines]


def _flag(flag: Flag) -> str:
    return f"{flag.short}, {flag.usage}" if flag.short else flag.usage


def complete(
    code: str,
    cursor: int,
    names: Mapping[str, Source] | None = None,
    *,
    inner_magics: frozenset[str] = foreign.IPYTHON,
) -> Completion | None:
    """What may stand at the cursor; None when the inner kernel is to be asked.

    Args:
        code: the cell's text.
        cursor: where the cursor is, in characters.
        names: where names of each kind come from.
        inner_magics: the inner kernel's magics, offered beside ours.
    """
    start = code.rfind("\n", 0, cursor) + 1
    line = code[start:cursor]
    called = _CALLED.match(line)
    if called is None:
        return _in_body(code, start, cursor)
    if called.end() == len(line):
        return _magic_names(called, start, inner_magics)
    magic = _magic(called[2], line[called.end() :])
    if magic is None:
        return _second_words(called[2], line, cursor)
    return _argument(magic, line, cursor, names or {})


def _in_body(code: str, start: int, cursor: int) -> Completion | None:
    """Under a cell magic of ours there is shell text, which the inner kernel does not know."""
    first = _CALLED.match(code.lstrip())
    magic = MAGICS.get(first[2]) if first and first[1] == "%%" and start else None
    return Completion((), cursor, cursor) if magic and magic.is_cell else None


def _magic_names(
    called: re.Match[str], start: int, inner_magics: frozenset[str]
) -> Completion | None:
    written = called[1] + called[2]
    signs = {m.sign.split()[0] for m in MAGICS.values()}
    signs |= inner_magics
    matches = sorted(
        (sign for sign in signs if sign.startswith(written)), key=lambda s: (s[:2] == "%%", s)
    )
    place = start + called.start(1)
    return Completion(tuple(matches), place, place + len(written)) if matches else None


def _magic(name: str, rest: str) -> Magic | None:
    if name in GROUPS:
        words = rest.split()
        is_whole = len(words) > 1 or rest[-1:].isspace()
        return MAGICS.get(f"{name} {words[0]}") if words and is_whole else None
    return MAGICS.get(name)


def _second_words(name: str, line: str, cursor: int) -> Completion | None:
    if name not in GROUPS:
        return None
    word = re.search(r"\S*$", line)[0]  # type: ignore[index]
    return _completion([verb for verb in group(name) if verb.startswith(word)], word, cursor)


def _argument(magic: Magic, line: str, cursor: int, names: Mapping[str, Source]) -> Completion:
    *before, word = re.split(r"\s+", line)
    flag, equals, value = word.partition("=")
    if equals and (found := magic.flag(flag)):
        return _completion(_values(found, value, names), value, cursor)
    previous = magic.flag(before[-1])
    if previous and previous.value:
        return _completion(_values(previous, word, names), word, cursor)
    if word.startswith("-"):
        flags = [flag.name for flag in magic.flags if flag.name.startswith(word)]
        return _completion(flags, word, cursor)
    return _completion(_known(magic.kind, word, names), word, cursor)


def _values(flag: Flag, prefix: str, names: Mapping[str, Source]) -> list[str]:
    offered = (*flag.choices, *sorted(flag.offers))
    chosen = [choice for choice in offered if choice.startswith(prefix)]
    return chosen or _known(flag.kind, prefix, names)


def _known(kind: str | None, prefix: str, names: Mapping[str, Source]) -> list[str]:
    if kind == "magic":
        return [name for name in MAGICS if name.startswith(prefix)]
    source = names.get(kind or "")
    return sorted(name for name in source(prefix) if name.startswith(prefix)) if source else []


def _completion(matches: Iterable[str], word: str, cursor: int) -> Completion:
    return Completion(tuple(matches), cursor - len(word), cursor)


def folder(directory: str | os.PathLike[str]) -> Source:
    """A source of the paths in ``directory``, written relative to it."""

    def paths(prefix: str) -> Iterable[str]:
        head, _, tail = prefix.rpartition("/")
        inside = os.path.normpath(os.path.join(directory, head or "."))
        if prefix.startswith("/") or os.path.relpath(inside, directory).startswith(".."):
            return []
        try:
            with os.scandir(inside) as entries:
                found = [(e.name, e.is_dir()) for e in entries if e.name.startswith(tail)]
        except OSError:
            return []
        stem = f"{head}/" if head else ""
        return [
            f"{stem}{name}{'/' if is_folder else ''}"
            for name, is_folder in found
            if tail.startswith(".") or not name.startswith(".")
        ]

    return paths
