"""Refusal: why something was not started: what an OCI runtime said, or the host kernel."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from ..errors import HostError, RuntimeFailed, out_of_files

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")

_NO_NAMESPACE = r"(?is)(unshare|clone|namespace).*no space left on device"
_ALLOW_NAMESPACES = (
    "this host allows no more namespaces of some kind, most likely of networks; an administrator "
    "can: sudo sysctl user.max_net_namespaces=15000 (container-kernel doctor names the kind)"
)


def of(argv: Sequence[str], returncode: int, log: Path, outputs: Iterable[int]) -> RuntimeFailed:
    """The error; ``outputs`` are the pipes it wrote to, or -1."""
    said = log.read_text() if log.exists() else ""
    for fd in outputs:
        if fd >= 0:
            os.set_blocking(fd, False)
            said = said or _read_all(fd)
    error = RuntimeFailed((Path(argv[0]).name, *argv[1:]), returncode, said)
    if re.search(_NO_NAMESPACE, said):
        error.hint = _ALLOW_NAMESPACES
    return error


def _read_all(fd: int) -> str:
    chunks = []
    try:
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except BlockingIOError:
        pass
    return b"".join(chunks).decode(errors="replace")


def of_the_host(start: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Have ``start`` raise a HostError where the host kernel refuses something on the way."""

    @functools.wraps(start)
    def told(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        try:
            return start(*args, **kwargs)
        except OSError as error:
            what = "no container can be started"
            raise out_of_files(error, what) or HostError(
                f"{what}: {error.strerror}",
                hint="`container-kernel doctor` shows what is missing",
            ) from error

    return told
