"""Secrets: what a step may read and no layer, history, log or cache key has.

``--secret ID`` names one. Its value comes from where the configuration says
(``c.ContainerKernel.secrets = {"ID": "env:NAME"}`` or ``"file:PATH"``), else from the variable
``CONTAINER_KERNEL_SECRET_ID``, else from the file ``~/.config/container-kernel/secrets/ID``. The
step finds it in ``/run/secrets/ID`` (0400), which lies in memory and only our mount namespace has.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from .. import syscalls
from ..errors import BadArguments
from ..runtime.host import Host
from .grants import Grants

FOLDER = "/run/secrets"
MASKED = "***"
_MOST_BYTES = 1 << 20
_LEAST_MASKED = 4


def find(name: str, grants: Grants) -> bytes:
    """The value of a secret.

    Raises:
        BadArguments: nothing says what it is, or it cannot be had.
    """
    kind, _, where = grants.secrets.get(name, "").partition(":")
    variable = where or "CONTAINER_KERNEL_SECRET_" + re.sub(r"\W", "_", name).upper()
    if kind in ("", "env") and variable in grants.environ:
        return _checked(name, os.fsencode(grants.environ[variable]))
    own = grants.home / ".config/container-kernel/secrets" / name
    file = Path(where).expanduser() if kind == "file" else own
    if kind == "env" or not file.is_file():
        asked = f"{kind}:{where}" if kind else f"${variable} or {own}"
        raise BadArguments(
            f"there is no secret {name!r}: {asked} is not there",
            hint=f"put it there, or say where it is: c.ContainerKernel.secrets[{name!r}]",
        )
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadArguments(
            f"the secret {name!r} can be read by others than you: {file}",
            hint=f"chmod 600 {file}",
        )
    return _checked(name, file.read_bytes())


def _checked(name: str, value: bytes) -> bytes:
    if not value.strip():
        raise BadArguments(f"the secret {name!r} is empty")
    if len(value) > _MOST_BYTES:
        raise BadArguments(f"the secret {name!r} is larger than 1 MiB")
    return value


class Secrets:
    """Secrets of one step, in a file system in memory that ends with it."""

    def __init__(self, host: Host, values: dict[str, bytes], owner: int) -> None:
        self.folder = host.new_folder("secrets")
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("tmpfs", str(self.folder), "tmpfs", flags, "size=4m,mode=0755")
        self.files = {name: self.folder / name for name in values}
        try:
            for name, value in values.items():
                fd = os.open(self.files[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
                with os.fdopen(fd, "wb") as file:
                    file.write(value)
                os.chown(self.files[name], owner, owner)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget them."""
        syscalls.umount(str(self.folder), syscalls.MNT_DETACH)


class Mask:
    """Replaces secrets in a stream of text, also where one comes in pieces."""

    def __init__(self, values: Iterable[bytes]) -> None:
        texts = {text for value in values for text in _forms(value)}
        self._texts = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._texts))) if texts else None
        self._held = ""

    def __call__(self, text: str) -> str:
        """What can be shown now; what may be the beginning of a secret waits for more."""
        if self._pattern is None:
            return text
        text = self._pattern.sub(MASKED, self._held + text)
        keep = self._begun(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What waited, at the end of the stream."""
        held, self._held = self._held, ""
        return held

    def _begun(self, text: str) -> int:
        """How many characters at the end could go on to be a secret."""
        longest = len(self._texts[0])
        for size in range(min(longest - 1, len(text)), 0, -1):
            if any(secret.startswith(text[-size:]) for secret in self._texts):
                return size
        return 0


def _forms(value: bytes) -> set[str]:
    """A secret as it may be printed: whole, and line by line."""
    text = value.decode(errors="replace")
    lines = [text, text.strip(), *(line.strip() for line in text.splitlines())]
    return {line for line in lines if len(line) >= _LEAST_MASKED}
