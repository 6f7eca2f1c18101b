"""Refusal: what an OCI runtime said when it did not start something."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import RuntimeFailed

_NO_NAMESPACE = r"(?is)(unshare|clone|namespace).*no space left on device"
_ALLOW_NAMESPACES = (
    "this host allows no more namespaces of some kind, most likely of networks; an administrator "
    "can: sudo sysctl user.max_net_namespaces=15000 (container-kernel doctor names the kind)"
)


def of(argv: tuple[str, str], returncode: int, log: Path, outputs: Iterable[int]) -> RuntimeFailed:
    """The error; ``outputs`` are the pipes it wrote to, which are closed."""
    said = log.read_text() if log.exists() else ""
    for fd in outputs:
        os.set_blocking(fd, False)
        said = said or _read_all(fd)
        os.close(fd)
    error = RuntimeFailed(argv, returncode, said)
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
