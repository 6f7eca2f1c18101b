"""Values: the words of a magic that stand for amounts, read strictly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime.mounts import Wish

# Patterns are compiled when first used: a kernel's start waits for none of them.
_SIZE = r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?"
_DURATION = r"(\d+(?:\.\d+)?)(ms|s|m|h)?"
LEAST_MEMORY = 6 * 1024**2
"""Below it not even the OCI runtime gets a container started."""
_NET = r"[A-Za-z0-9_.:*\[\]-]+(,[A-Za-z0-9_.:*\[\]-]+)*"
_PORT = r"(?:(\d{1,5}):)?(\d{1,5})"
_SECRET = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_DEVICE = r"/dev(/[A-Za-z0-9_][A-Za-z0-9_.:-]*)+"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_AGES = {"d": 86400.0, "w": 7 * 86400.0}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def size(text: str) -> int:
    """Bytes of ``512m``, ``2g`` or ``1048576``.

    Raises:
        ValueError: it is not an amount, or zero.
    """
    match = re.fullmatch(_SIZE, text, re.IGNORECASE)
    amount = 0
    if match:
        amount = int(float(match[1]) * 1024 ** _POWERS[(match[2] or "").lower()])
    if amount <= 0:
        raise ValueError("a size such as 512m or 2g")
    return amount


def memory(text: str) -> int:
    """Bytes of a memory limit that a container can start with.

    Raises:
        ValueError: it is no amount, or one that no container can have.
    """
    return _size(text, LEAST_MEMORY, "a size from 6m on, such as 512m or 2g")


def swap(text: str) -> int:
    """Bytes of swap, none included.

    Raises:
        ValueError: it is no amount.
    """
    return 0 if text == "0" else _size(text, 1, "0, or a size such as 512m")


def file_system(text: str) -> int:
    """Bytes of a file system in memory.

    Raises:
        ValueError: it is no amount, or less than a few pages, or more than any host has.
    """
    return _size(text, 64 * 1024, "a size from 64k on, such as 64m")


def _size(text: str, least: int, wanted: str) -> int:
    try:
        amount = size(text)
    except ValueError:
        amount = -1
    if not least <= amount < 1 << 60:
        raise ValueError(wanted)
    return amount


def rate(text: str) -> int:
    """Bytes a second of ``10m`` or ``10m/s``.

    Raises:
        ValueError: it is none.
    """
    return _size(text.removesuffix("/s"), 4096, "bytes a second such as 10m")


def weight(text: str) -> int:
    """A share, 1 to 10000.

    Raises:
        ValueError: it is something else.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10000):
        raise ValueError("a number from 1 to 10000; everybody's is 100")
    return int(text)


def files(text: str) -> int:
    """A number of open files with which an OCI runtime can still set up the container.

    Raises:
        ValueError: it is something else.
    """
    if not (text.isascii() and text.isdigit() and 64 <= int(text) < 2**31):
        raise ValueError("a whole number from 64 on, such as 1024")
    return int(text)


def cpuset(text: str) -> tuple[int, ...]:
    """Processors as ``0-3,5``, of those that this process may use.

    Raises:
        ValueError: it is something else, or one of them is not there.
    """
    import os

    here = sorted(os.sched_getaffinity(0))
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match:
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
        if not match or not found or not found <= set(here):
            raise ValueError(f"processors as 0-1 or 0,2; here are {','.join(map(str, here))}")
    return tuple(sorted(found))


def duration(text: str) -> float:
    """Seconds of ``30s``, ``5m``, ``1h`` or ``2.5``.

    Raises:
        ValueError: it is not a time, or zero.
    """
    match = re.fullmatch(_DURATION, text)
    seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else 0.0
    if seconds <= 0:
        raise ValueError("a time such as 30s or 5m")
    return seconds


def age(text: str) -> float:
    """Seconds of ``30d``, ``12h`` or ``2w``.

    Raises:
        ValueError: it is not a time, or zero.
    """
    number, unit = text[:-1], _AGES.get(text[-1:])
    if unit is None:
        return duration(text)
    return duration(number) * unit


def count(text: str) -> int:
    """A whole number above zero.

    Raises:
        ValueError: it is something else.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise ValueError("a whole number above zero")
    return int(text)


def cpus(text: str) -> float:
    """A number of processors, such as ``0.5`` or ``2``.

    Raises:
        ValueError: it is something else.
    """
    import os

    here = os.cpu_count() or 1
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text) or not 0.01 <= float(text) <= here:
        raise ValueError(f"a number from 0.01 to {here}, the processors here, such as 0.5")
    return float(text)


def kernel(text: str) -> str:
    """What Jupyter can call a kernel.

    Raises:
        ValueError: it is something else, or our plain kernel's own name.
    """
    if not re.fullmatch(r"[a-z0-9]+([._-]+[a-z0-9]+)*", text) or text == "container":
        raise ValueError("a name of small letters and digits, with . _ - between them")
    return text


def folder(text: str) -> str:
    """A folder inside the container that a cache can be mounted on.

    Raises:
        ValueError: it is relative, has ``..`` in it, or is the host kernel's or ours.
    """
    from ..runtime import mounts

    if not text.startswith("/") or ".." in text.split("/"):
        raise ValueError("an absolute path such as /root/.cache")
    mounts.folder(text)
    return text


def net(text: str) -> str:
    """What a network can be called; which of them there are is known elsewhere.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(_NET, text):
        raise ValueError("none, host, pasta, or hosts and names of sets, separated by commas")
    return text


def port(text: str) -> tuple[int, int]:
    """A port inside and the one it has outside, of ``8888`` or ``HOST:INSIDE`` as docker has it.

    Raises:
        ValueError: it is something else.
    """
    match = re.fullmatch(_PORT, text, re.ASCII)
    inside = int(match[2]) if match else 0
    outside = int(match[1]) if match and match[1] else inside
    if not 0 < inside < 65536 or not outside < 65536:
        raise ValueError("a port such as 8888, 9999:8888 (9999 here), or 0:8888 (any that is free)")
    return inside, outside


def secret(text: str) -> str:
    """The name of a secret.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(_SECRET, text):
        raise ValueError("a name of letters, digits and . _ -")
    return text


def device(text: str) -> str:
    """The path of a device.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(_DEVICE, text):
        raise ValueError("the path of a device such as /dev/fuse")
    return text


def mount(text: str) -> Wish:
    """A mount, ``SRC:DST``.

    Raises:
        ValueError: it is something else.
    """
    from ..runtime import mounts

    return mounts.parse(text)


def tmpfs(text: str) -> Wish:
    """A folder in memory, ``DIR`` or ``DIR:SIZE``.

    Raises:
        ValueError: it is something else.
    """
    from ..runtime import mounts

    folder, colon, amount = text.partition(":")
    return mounts.parse_tmpfs(folder, size(amount) if colon else None)
