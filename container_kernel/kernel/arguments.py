"""Arguments: the words after a magic, read as its entry in the table says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadArguments
from ..record import field, record
from .declaring import Flag, Magic


@record
class Arguments:
    """What a magic was given: its positional ``words``, and its flags by name.

    ``arguments["from"]`` is the value of ``--from``, or its default; a switch is True or False, a
    flag that may repeat is a tuple.
    """

    words: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, flag: str) -> Any:
        return self.flags[flag]

    def word(self, index: int = 0) -> str | None:
        """A positional argument that may be left out."""
        return self.words[index] if index < len(self.words) else None


def read(magic: Magic, text: str) -> Arguments:
    """The arguments in ``text``.

    Raises:
        BadArguments: an unknown flag, a value that is none, too many or too few words.
    """
    words: list[str] = []
    flags: dict[str, Any] = {}
    rest = _split(magic, text)
    while rest:
        word = rest.pop(0)
        if word == "--" and not (magic.is_verbatim and not magic.flags):
            words += rest
            break
        if not _is_flag(magic, word):
            words.append(word)
            if magic.is_verbatim:
                words += rest
                break
        elif word not in magic.already:
            _take_flag(magic, word, rest, flags)
    _check_count(magic, words)
    for flag in magic.flags:
        if flag.is_needed and flag.key not in flags:
            raise BadArguments(f"{magic.sign} needs {flag.usage}", hint=see(magic))
    return Arguments(tuple(words), _defaults(magic) | flags)


def _split(magic: Magic, text: str) -> list[str]:
    if "\0" in text:
        raise BadArguments(f"{magic.sign} has a NUL character in it")
    if not any(character in text for character in "'\"\\"):
        return text.split()  # much the common case, and 20 times faster than shlex
    try:
        return shlex.split(text, comments=False)
    except ValueError as error:
        what = (
            "ends in a backslash" if "escaped" in str(error) else "has a quote that is not closed"
        )
        raise BadArguments(
            f"{magic.sign} {what}: {text.strip()}",
            hint="close the quote, or put a backslash before it",
        ) from None


def _is_flag(magic: Magic, word: str) -> bool:
    if magic.is_verbatim and not magic.flags:
        return False
    return len(word) > 1 and word.startswith("-")


def _take_flag(magic: Magic, word: str, rest: list[str], flags: dict[str, Any]) -> None:
    name, equals, value = word.partition("=")
    flag = magic.flag(name)
    if flag is None:
        raise _unknown(magic, name)
    if flag.value is None:
        if equals:
            raise BadArguments(f"{flag.name} of {magic.sign} takes no value, found {value!r}")
        flags[flag.key] = True
        return
    if not equals:
        if not rest:
            raise BadArguments(f"{name} of {magic.sign} needs a value: {flag.usage}")
        value = rest.pop(0)
    if flag.repeats:
        flags[flag.key] = (*flags.get(flag.key, ()), _value(magic, flag, value))
    elif flag.key in flags:
        raise BadArguments(f"{flag.name} of {magic.sign} is given twice", hint="leave one out")
    else:
        flags[flag.key] = _value(magic, flag, value)


def _value(magic: Magic, flag: Flag, text: str) -> object:
    if flag.choices and text not in flag.choices:
        raise BadArguments(
            f"{flag.name} of {magic.sign} is {' or '.join(flag.choices)}, found {text!r}",
            hint=suggestion(text, flag.choices),
        )
    try:
        if not text:
            raise ValueError(flag.value)
        return flag.read(text)
    except ValueError as error:
        raise BadArguments(f"{flag.name} of {magic.sign} takes {error}, found {text!r}") from None


def _unknown(magic: Magic, name: str) -> BadArguments:
    if not magic.flags:
        return BadArguments(f"{magic.sign} takes no flags, found {name}", hint=see(magic))
    known = [flag.name for flag in magic.flags]
    near = suggestion(name, known, or_else=f"it takes {', '.join(known)}; see {magic.sign}?")
    return BadArguments(f"{magic.sign} has no flag {name}", hint=near)


def _check_count(magic: Magic, words: Sequence[str]) -> None:
    expected = f"{magic.sign} {magic.takes}".rstrip()
    if len(words) < magic.least:
        found = " ".join(words) or "nothing"
        raise BadArguments(f"{magic.sign} needs more: {expected}, found {found}", hint=see(magic))
    if magic.most is not None and len(words) > magic.most:
        extra = " ".join(words[magic.most :])
        wants = f"only {expected}" if magic.takes else "no words"
        raise BadArguments(f"{magic.sign} takes {wants}, found also {extra!r}", hint=see(magic))


def _defaults(magic: Magic) -> dict[str, Any]:
    return {f.key: () if f.repeats else f.default if f.value else False for f in magic.flags}


def see(magic: Magic) -> str:
    """The hint that leads to a magic's help."""
    example = magic.example.splitlines()[0]
    return f"write it like {example!r}; {magic.sign}? shows more"


def suggestion(word: str, known: Sequence[str], *, or_else: str | None = None) -> str | None:
    """``write X`` for the ones of ``known`` nearest to ``word``, if any is near."""
    near = nearest(word, known)
    return f"write {' or '.join(near)}" if near else or_else


def nearest(word: str, known: Sequence[str], cutoff: float = 0.6) -> list[str]:
    """The one of ``known`` most like ``word``; also the second, if it is nearly as near."""
    from difflib import SequenceMatcher, get_close_matches  # only mistakes pay for it

    def likeness(other: str) -> float:
        return SequenceMatcher(None, word, other).ratio()

    near = get_close_matches(word, known, 2, cutoff)
    return [one for one in near if likeness(one) > likeness(near[0]) - 0.1]
