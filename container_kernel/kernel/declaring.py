"""Declaring: the values that say what a magic is and what it takes; `commands` is the table."""

from __future__ import annotations

from collections.abc import Callable

from ..record import record


@record
class Flag:
    """One ``--name`` a magic takes; without ``value`` it is a switch."""

    name: str
    help: str
    value: str | None = None
    short: str | None = None
    repeats: bool = False
    choices: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    """What Tab offers, among other values it takes."""
    default: object = None
    read: Callable[[str], object] = str
    kind: str | None = None
    is_needed: bool = False

    @property
    def key(self) -> str:
        """The name in ``Arguments``: ``--from`` is ``from``."""
        return self.name.removeprefix("--")

    @property
    def usage(self) -> str:
        """As help shows it: ``--net host|none``."""
        return f"{self.name} {self.value}" if self.value else self.name


@record(kw_only=True)
class Magic:
    """One magic. ``kind`` is what its positional arguments name, for completion."""

    name: str
    summary: str
    takes: str = ""
    details: str = ""
    example: str = ""
    flags: tuple[Flag, ...] = ()
    is_build: bool = False
    is_cell: bool = False
    is_verbatim: bool = False
    """The first word ends the flags: everything from there on is somebody else's command line."""
    already: tuple[str, ...] = ()
    """Flags that ask for what is done anyway: accepted, and dropped."""
    kind: str | None = None

    @property
    def sign(self) -> str:
        """How a cell calls it: ``%apt`` or ``%%build``."""
        return f"{'%%' if self.is_cell else '%'}{self.name}"

    @property
    def usage(self) -> str:
        """The line help begins with."""
        flags = [f.usage if f.is_needed else f"[{f.usage}]{'...' * f.repeats}" for f in self.flags]
        return " ".join([self.sign, *([self.takes] if self.takes else []), *flags])

    @property
    def least(self) -> int:
        """How many positional arguments it needs."""
        return sum(not word.startswith("[") for word in self.takes.split())

    @property
    def most(self) -> int | None:
        """How many it can take; None is any number."""
        return None if "..." in self.takes else len(self.takes.split())

    def flag(self, text: str) -> Flag | None:
        """The flag written as ``text``, if it has one."""
        return next((f for f in self.flags if text in (f.name, f.short)), None)
