"""Ceilings: what an administrator lets the users of a host have at most.

They are in a file that only root can write. Whoever may change this package's code or run a program
of their own is not held by it: it holds what users ask of this one.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import CeilingExceeded, UsageError
from .record import record, replace
from .runtime import level
from .runtime.limits import Limits
from .runtime.relaxed import ADD_CAP, AS_ROOT, NO_SECCOMP, capability

_UNMAPPED = 65534
_SIZE = r"(?i)(\d+)([kmgt]?)"
_KEYS = {
    "memory": "memory_bytes",
    "swap": "swap_bytes",
    "cpus": "cpus",
    "pids": "pids",
    "files": "open_files",
    "shm": "shm_bytes",
    "scratch": "scratch_bytes",
    "timeout": "timeout_s",
}
_OTHERS = ("networks", "isolation", "relaxed")


@record(kw_only=True)
class Ceilings:
    """``most`` is by the fields of `Limits`; of ``networks`` and ``relaxed`` None allows all,
    ``isolation`` is the least level. ``file`` says it.
    """

    most: Mapping[str, float]
    networks: tuple[str, ...] | None = None
    relaxed: tuple[str, ...] | None = None
    """What may weaken a container, in the words of `Relaxed`; ``add-cap`` is any capability."""
    isolation: str | None = None
    file: Path

    def lower(self, limits: Limits) -> Limits:
        """``limits`` with what is above a ceiling, or without any limit, at the ceiling."""
        found = {}
        for name, most in self.most.items():
            value = getattr(limits, name)
            if value is None or value > most:
                found[name] = most
        return replace(limits, **found)

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raise where something above a ceiling is asked for.

        Raises:
            CeilingExceeded: it is.
        """
        for key, name in _KEYS.items():
            value, most = asked.get(name), self.most.get(name)
            if value is not None and most is not None and value > most:
                raise CeilingExceeded(key, _shown(name, value), _shown(name, most), str(self.file))

    def check_network(self, name: str) -> None:
        """Raise where a network is not allowed.

        Raises:
            CeilingExceeded: it is not.
        """
        if self.networks is not None and name != "none" and name not in self.networks:
            allowed = " or ".join(dict.fromkeys(("none", *self.networks)))
            raise CeilingExceeded("net", name, allowed, str(self.file))

    def check_relaxed(self, words: Sequence[str]) -> None:
        """Raise where something that weakens a container is not allowed.

        Raises:
            CeilingExceeded: so it is.
        """
        allowed = self.relaxed
        for word in words if allowed is not None else ():
            if not {word, word.partition(" ")[0]} & {*(allowed or ())}:
                most = " or ".join(allowed or ("nothing",))
                raise CeilingExceeded("what weakens a container", word, most, str(self.file))


def read(file: Path) -> Ceilings:
    """The ceilings in ``file``.

    Raises:
        UsageError: the file is not root's alone, or says what it cannot.
    """
    try:
        about = file.stat()
    except OSError as error:
        raise UsageError(f"{file}: the administrator's ceilings cannot be read") from error
    _check_owner(file, about.st_uid, about.st_mode)
    import tomllib

    try:
        values = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {error}", hint="ask the administrator to mend it") from None
    unknown = sorted(set(values) - {*_KEYS, *_OTHERS})
    if unknown:
        raise UsageError(
            f"{file}: no ceiling is called {unknown[0]!r}",
            hint=f"ceilings are: {', '.join((*_KEYS, *_OTHERS))}",
        )
    if (isolation := values.get("isolation")) is not None:
        level.check_name(isolation)
    return Ceilings(
        most={
            name: _amount(file, key, values[key]) for key, name in _KEYS.items() if key in values
        },
        networks=_texts(file, "networks", values, "none"),
        relaxed=_relaxed(file, values),
        isolation=isolation,
        file=file,
    )


def _texts(file: Path, key: str, values: Mapping[str, Any], example: str) -> tuple[str, ...] | None:
    found = values.get(key)
    if found is None:
        return None
    if isinstance(found, list) and all(isinstance(one, str) for one in found):
        return tuple(found)
    raise UsageError(f"{file}: {key} takes a list such as ['{example}'], found {found!r}")


def _relaxed(file: Path, values: Mapping[str, Any]) -> tuple[str, ...] | None:
    found = _texts(file, "relaxed", values, AS_ROOT)
    return None if found is None else tuple(_weakening(file, word) for word in found)


def _weakening(file: Path, word: str) -> str:
    """The word as `Relaxed` writes it."""
    kind, _, name = word.partition(" ")
    if word in (AS_ROOT, ADD_CAP, NO_SECCOMP):
        return word
    try:
        if kind == ADD_CAP:
            return f"{ADD_CAP} {capability(name).removeprefix('CAP_')}"
    except ValueError:
        pass
    raise UsageError(
        f"{file}: nothing that weakens a container is called {word!r}",
        hint=f"relaxed takes {AS_ROOT}, {NO_SECCOMP}, {ADD_CAP} or {ADD_CAP} NAME",
    )


def _check_owner(file: Path, uid: int, mode: int) -> None:
    """Only root may have written it. In a user namespace of ours, the host's root is nobody, and
    who looks like root is the user.
    """
    rows = Path("/proc/self/uid_map").read_text().split()
    root = 0 if rows == ["0", "0", "4294967295"] else _UNMAPPED
    if uid != root or mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"{file} is not root's alone, so its ceilings cannot be trusted",
            hint=f"as root: chown root:root {file} && chmod 644 {file}",
        )


def _amount(file: Path, key: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value > 0:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    match = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
    if match and int(match[1]) > 0:
        return int(match[1]) * int(1024 ** " kmgt".index(match[2].lower() or " "))
    raise UsageError(f"{file}: {key} takes a number or a size such as '8g', found {value!r}")


def _shown(name: str, value: float) -> str:
    if name.endswith("_bytes") and value >= 1024**2:
        return f"{value / 1024**2:.10g}m"
    return f"{value:g}{'s' if name.endswith('_s') else ''}"
