"""Sending: values of one stage's session become variables of another's.

Two sessions share no memory and may not even share a language. So a value goes as text, through
the folders their containers share with this side: JSON between Pythons, plain text to and from a
shell. The code that writes and reads it runs unseen in the sessions themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import BadArguments, CellError
from ..record import record
from .wire import Dict, parse_object

if TYPE_CHECKING:
    from .app import App
    from .inner import Inner
    from .inners import Place
    from .magics import Command

_LIMIT_BYTES = 64 << 20
_FILE = "value"
_HINT = "write it to a file in /work: all stages see the same folder"

# What went wrong is written as well: not every reply says it.
_PYTHON_OUT = """\
try:
    __import__('pathlib').Path({path!r}).write_text(
        __import__('json').dumps({{'value': {name}}}), 'utf-8')
except Exception as __ck_error:
    __import__('pathlib').Path({path!r}).write_text(__import__('json').dumps(
        {{'ename': type(__ck_error).__name__, 'evalue': str(__ck_error)}}), 'utf-8')
"""
_PYTHON_IN = (
    "{name} = __import__('json').loads(__import__('pathlib').Path({path!r}).read_text('utf-8'))"
)
_SHELL_OUT = '[ -n "${{{name}+x}}" ] && printf %s "${name}" >\'{path}\''
# What $(…) cuts off is newlines at the end: the x keeps them.
_SHELL_IN = "{name}=$(cat '{path}'; echo x); {name}=${{{name}%x}}"


@record
class _Language:
    """How a language writes a variable to a file, and reads one."""

    is_shell: bool
    out: str
    into: str


_LANGUAGES = {
    "python": _Language(False, _PYTHON_OUT, _PYTHON_IN),
    "bash": _Language(True, _SHELL_OUT, _SHELL_IN),
    "sh": _Language(True, _SHELL_OUT, _SHELL_IN),
}


@record
class Parcel:
    """One value on its way: what it is called, there and here, and between which stages."""

    name: str
    new_name: str
    origin: str | None
    target: str


def parcels(command: Command) -> list[Parcel]:
    """What ``%send`` names.

    Raises:
        BadArguments: a name that no variable can have, or one new name for several.
    """
    if command.name != "send":
        raise BadArguments(
            f"%send and {command.line.split()[0]} are in one cell",
            hint="give %send a cell of its own",
        )
    args = command.args
    names, new_name = args.words, args["as"]
    for name in (*names, *([new_name] if new_name else [])):
        if not (name.isascii() and name.isidentifier()):
            raise BadArguments(f"%send takes names of variables, found {name!r}")
    if new_name and len(names) > 1:
        raise BadArguments("--as of %send names one variable", hint="send them one by one")
    return [Parcel(name, new_name or name, args["from"], args["to"]) for name in names]


class Sending:
    """Sends values one after the other, in the loop; then tells ``done``."""

    def __init__(
        self,
        app: App,
        find_live: Callable[[str | None], Place],
        done: Callable[[BaseException | None], object],
    ) -> None:
        self._app = app
        self._find_live = find_live
        self._done = done

    def send(self, waiting: list[Parcel]) -> None:
        """Send the first, then the others."""
        if not waiting:
            self._done(None)
            return
        first, *others = waiting
        self._in_stage(first.origin, lambda origin: self._export(first, origin, others))

    def _in_stage(self, stage: str | None, action: Callable[[Inner], object]) -> None:
        inners = self._app.inners
        inners.is_stale = True

        def guarded(inner: Inner) -> None:
            try:
                action(inner)
            except CellError as error:
                self._done(error)

        inners.when_ready(guarded, lambda: self._find_live(stage), self._done)

    def _export(self, parcel: Parcel, origin: Inner, others: list[Parcel]) -> None:
        language = _language(origin)
        path = origin.mailbox.inside(_FILE)

        def exported(reply: Dict | None) -> None:
            try:
                if reply is None:
                    raise CellError(f"the session ended while {parcel.name} was sent")
                if language.is_shell and reply.get("status") != "ok":
                    raise _unknown(parcel)
                value = _value(parcel, language, origin.mailbox.take(_FILE, _LIMIT_BYTES))
            except OSError as error:
                self._done(CellError(f"{parcel.name} was not sent: {error}", hint=_HINT))
            except CellError as error:
                self._done(error)
            else:
                goods = _Goods(origin, value)
                self._in_stage(
                    parcel.target, lambda target: self._import(parcel, goods, target, others)
                )

        self._app.ask(origin, language.out.format(name=parcel.name, path=path), exported)

    def _import(self, parcel: Parcel, goods: _Goods, target: Inner, others: list[Parcel]) -> None:
        if target is goods.origin:
            raise CellError(f"{parcel.name} is in stage {parcel.target} already")
        language = _language(target)
        data = _written(goods.value, language)
        path = target.mailbox.write(_FILE, data)

        def imported(reply: Dict | None) -> None:
            target.mailbox.remove(_FILE)
            if reply is None or reply.get("status") != "ok":
                why = (reply or {}).get("evalue") or "the other session did not take it"
                self._done(CellError(f"{parcel.new_name} did not arrive: {why}", hint=_HINT))
            else:
                self.send(others)

        self._app.ask(target, language.into.format(name=parcel.new_name, path=path), imported)


@record
class _Goods:
    """A value, and the session it came from."""

    origin: Inner
    value: Any


def _language(inner: Inner) -> _Language:
    name = inner.info.get("language_info", {}).get("name", "")
    if name not in _LANGUAGES:
        raise CellError(f"%send knows python and sh, and this stage speaks {name}", hint=_HINT)
    return _LANGUAGES[name]


def _unknown(parcel: Parcel) -> CellError:
    return CellError(
        f"there is no variable {parcel.name} to send",
        hint="set it, or name the stage that has it with --from",
    )


def _value(parcel: Parcel, language: _Language, data: bytes) -> Any:
    """What was written, as a value; what a shell has is text.

    Raises:
        CellError: there was no such variable, or JSON cannot say what it is.
    """
    if language.is_shell:
        return data.decode("utf-8", "replace")
    written = parse_object(data)
    if "value" in written:
        return written["value"]
    if written.get("ename") == "NameError":
        raise _unknown(parcel)
    why = written.get("evalue", "its session did not say what it is")
    raise CellError(
        f"{parcel.name} cannot be sent: {why}",
        hint="send text, numbers, lists or dicts; for anything else, " + _HINT,
    )


def _written(value: Any, language: _Language) -> bytes:
    """A value as the code that reads it wants it."""
    if not language.is_shell:
        return json.dumps(value).encode()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "" if value is None else text
    if "\0" in text:
        raise CellError("the text has a NUL character in it, which no shell variable can hold")
    return text.encode("utf-8", "replace")
