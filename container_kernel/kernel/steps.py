"""Steps: a build magic and its arguments become one step value, checked as far as text can be."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from ..build.step import Base, Copy, Download, Packages, Setting, Shell, Step
from ..errors import BadArguments
from .arguments import Arguments, see
from .declaring import Magic

# Patterns are compiled when first used: a kernel's start waits for none of them.
_DIGEST = r"sha256:[0-9a-f]{64}"
_URL = r"https?://[^/?#\s]+(?P<path>/[^?#\s]*)?([?#]\S*)?"
_OURS = ("--requirement", "--restart", "--no-restart")
_ESCAPED = r"((?:%[0-9A-Fa-f]{2})+)"
_STAGE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
_PACKAGE = {
    "apt": r"[a-z0-9][a-z0-9.+-]*(:[a-z0-9]+)?(=[\w.+:~*-]+|/[\w.+-]+)?",
    "pip": r"[^\s#-]\S*(\s*[@;<>=!~].*)?",
    "npm": r"[^\s#-]\S*",
}
_INSTALL = {"apt": ("install",), "pip": ("install",), "npm": ("install", "i", "add")}
# Verbs of the real tools that install nothing. A package of such a name can still be had by
# writing `%pip install NAME`, so a slip never fetches whatever somebody published under it.
_OTHER_VERBS = {
    "apt": "update upgrade full-upgrade dist-upgrade remove purge autoremove search show list "
    "clean download source build-dep edit-sources policy",
    "pip": "uninstall list freeze show check download wheel hash search cache config debug index "
    "inspect help sync compile",
    "npm": "uninstall remove rm list ls run test start ci init update audit publish outdated exec",
}


def wants_restart(magic: Magic, arguments: Arguments) -> bool | None:
    """What is asked of the session that runs: a new one, never a new one, or nothing.

    Raises:
        BadArguments: both.
    """
    new, old = (arguments.flags.get(key, False) for key in ("restart", "no-restart"))
    if new and old:
        raise BadArguments(f"{magic.sign} has --restart and --no-restart", hint="leave one out")
    return True if new else False if old else None


def step(magic: Magic, arguments: Arguments, body: str | None) -> Base | Step:
    """The step a build magic means.

    Raises:
        BadArguments: something in it cannot be meant.
    """
    if body is not None:
        return _shell(magic, arguments, body)
    return _MAKERS.get(magic.name, _setting)(magic, arguments)


def _shell(magic: Magic, arguments: Arguments, body: str) -> Shell:
    if all(not line.strip() or line.lstrip().startswith("#") for line in body.splitlines()):
        raise BadArguments(f"{magic.sign} has only comments in it", hint="write what it does")
    if "\0" in body:
        raise BadArguments(f"{magic.sign} has a NUL character in it")
    return Shell(
        body,
        name=arguments["name"],
        net=arguments["net"],
        cache=arguments["cache"],
        mounts=arguments["mount"],
        secrets=arguments["secret"],
        devices=arguments["device"],
        ssh=arguments["ssh"],
    )


def _base(magic: Magic, arguments: Arguments) -> Base:
    (reference,) = arguments.words
    stage = arguments["as"]
    if not re.fullmatch(_STAGE, stage):
        raise BadArguments(f"--as takes a name of letters, digits and . _ -, found {stage!r}")
    return Base(reference, stage)


def _packages(magic: Magic, arguments: Arguments) -> Packages:
    names = arguments.words
    verbs = _INSTALL[magic.name]
    if names and names[0] in verbs:
        names = names[1:]
    elif names and names[0] in _OTHER_VERBS[magic.name].split():
        raise BadArguments(
            f"{magic.sign} only installs, found {names[0]!r}",
            hint=f"use %%build or %%sh for it, or write `{magic.sign} install {names[0]}` "
            "if that is a package",
        )
    if not names and not arguments["requirement"]:
        raise BadArguments(f"{magic.sign} needs a package, or -r FILE", hint=see(magic))
    for name in names:
        _check_package(magic, name)
    return Packages(magic.name, names, arguments["requirement"], _options(magic, arguments))


def _check_package(magic: Magic, name: str) -> None:
    if name.startswith("#"):
        raise BadArguments(
            f"{magic.sign} does not take comments, found {name!r}",
            hint="put the comment on a line of its own, above",
        )
    if not re.fullmatch(_PACKAGE[magic.name], name):
        raise BadArguments(f"{magic.sign} takes names of packages, found {name!r}", hint=see(magic))


def _options(magic: Magic, arguments: Arguments) -> tuple[str, ...]:
    """The flags that go on to the tool, in the table's order, one word each."""
    options: list[str] = []
    for flag in magic.flags:
        value = arguments[flag.key]
        if flag.name in _OURS or not value:
            continue
        if value is True:
            options.append(flag.name)
        else:
            values = value if flag.repeats else (value,)
            options += [f"{flag.name}={one}" for one in values]
    return tuple(options)


def _copy(magic: Magic, arguments: Arguments) -> Copy:
    *sources, destination = arguments.words
    if len(sources) > 1 and not destination.endswith("/"):
        raise BadArguments(
            f"%copy of several files needs a folder, found {destination!r}",
            hint=f"write {destination}/ if it is one",
        )
    return Copy(tuple(sources), destination, arguments["from"])


def _download(magic: Magic, arguments: Arguments) -> Download:
    url, digest, *rest = arguments.words
    parts = re.fullmatch(_URL, url, re.IGNORECASE)
    if parts is None:
        raise BadArguments(f"%download takes a http or https URL, found {url!r}", hint=see(magic))
    if not re.fullmatch(_DIGEST, digest):
        raise BadArguments(
            f"%download needs sha256: and 64 hex digits after the URL, found {digest!r}",
            hint=f"find the digest with: curl -sSL {url} | sha256sum",
        )
    name = posixpath.basename(re.sub(_ESCAPED, _unescaped, parts["path"] or ""))
    is_folder = bool(rest) and rest[0].endswith("/")
    if (is_folder or not rest) and (name in ("", ".", "..") or "\0" in name):
        raise BadArguments(f"{url} ends in no file name", hint="write one as the last word")
    return Download(url, digest, (rest[0] + name if is_folder else rest[0]) if rest else name)


def _unescaped(match: re.Match[str]) -> str:
    # urllib.parse would do this, and cost the kernel's start 4 ms.
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace")


def _setting(magic: Magic, arguments: Arguments) -> Setting:
    values = arguments.words
    check = _CHECKS.get(magic.name)
    for value in values:
        if check and (problem := check(value)):
            raise BadArguments(f"{magic.sign} {problem}, found {value!r}", hint=see(magic))
    return Setting(magic.name, values)


def _bad_variable(text: str) -> str | None:
    name, equals, _ = text.partition("=")
    is_good = equals and re.fullmatch(_VARIABLE, name)
    return None if is_good else "takes NAME=VALUE, with a NAME of letters, digits and _"


def _bad_label(text: str) -> str | None:
    name, equals, _ = text.partition("=")
    return None if equals and name.strip() else "takes NAME=VALUE"


def _bad_folder(text: str) -> str | None:
    is_good = text.startswith("/") and ".." not in text.split("/")
    return None if is_good else "takes an absolute path"


def _bad_user(text: str) -> str | None:
    return None if re.fullmatch(_USER, text) else "takes a name or number, or USER:GROUP"


_CHECKS: dict[str, Callable[[str], str | None]] = {
    "env": _bad_variable,
    "label": _bad_label,
    "workdir": _bad_folder,
    "user": _bad_user,
}
_MAKERS: dict[str, Callable[[Magic, Arguments], Base | Step]] = {
    "base": _base,
    "apt": _packages,
    "pip": _packages,
    "npm": _packages,
    "copy": _copy,
    "download": _download,
}
