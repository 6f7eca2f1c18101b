"""Credentials: what docker and podman know of the user, read from their files and helpers.

Nothing is ever written to them, and no secret is in a message: what a helper says is not shown.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..record import field, record

_MAX_FILE_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 64 << 10
_HELPER_TIMEOUT_S = 10.0
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB = "docker.io"
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"

OnWarning = Callable[[str], None]


@record
class Credentials:
    """A name and its password, or with an empty name an identity token."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, …)"

    @property
    def basic(self) -> str:
        """As the value of an ``Authorization`` header."""
        pair = f"{self.user}:{self.secret}".encode()
        return "Basic " + base64.b64encode(pair).decode()


@record
class Wallet:
    """Where one user's credentials are. ``environ`` tells the files, and is what helpers get."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    user_home: Path = Path("/")
    helper_timeout_s: float = _HELPER_TIMEOUT_S

    def find(self, registry: str, path: str, warn: OnWarning) -> Credentials | None:
        """What is known for the repository ``path`` of ``registry``; the first file that knows.

        Raises:
            UsageError: a file is broken, or a helper hangs or fails.
        """
        for file in self._files():
            document = _read(file, warn)
            if document and (found := self._in(document, file, registry, path)):
                return found
        return None

    def _files(self) -> Iterator[Path]:
        """Podman's places, then docker's, as podman looks."""
        environ, home = self.environ, self.user_home
        if given := environ.get("REGISTRY_AUTH_FILE"):
            yield Path(given)
        if runtime := environ.get("XDG_RUNTIME_DIR"):
            yield Path(runtime, "containers/auth.json")
        yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json")
        yield Path(environ.get("DOCKER_CONFIG") or home / ".docker", "config.json")

    def _in(
        self, document: Mapping[str, Any], file: Path, registry: str, path: str
    ) -> Credentials | None:
        names = _keys(registry, path)
        helpers = document.get("credHelpers")
        auths = document.get("auths")
        for name in names:
            if isinstance(helpers, dict) and isinstance(helper := helpers.get(name), str):
                return self._ask(helper, name)
            if isinstance(auths, dict) and isinstance(entry := auths.get(name), dict):
                if found := _entry(entry, file, name):
                    return found
        if isinstance(store := document.get("credsStore"), str) and store:
            asked = (self._ask(store, name) for name in names if "/" not in name or ":/" in name)
            return next(filter(None, asked), None)
        return None

    def _ask(self, helper: str, name: str) -> Credentials | None:
        """Ask a program, by the protocol of docker-credential-helpers."""
        if not _HELPER.fullmatch(helper):
            raise UsageError(f"{helper!r} cannot be the name of a credential helper")
        command = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [command, "get"],
                input=name.encode(),
                capture_output=True,
                env=dict(self.environ) or None,
                timeout=self.helper_timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"{command} did not answer within {self.helper_timeout_s:g} s",
                hint=f"try: echo {name} | {command} get",
            ) from None
        except OSError as error:
            raise UsageError(
                f"{command} cannot be run: {error.strerror}",
                hint="install it, or take it out of docker's config.json",
            ) from None
        said = done.stdout[:_MAX_ANSWER_BYTES]
        if done.returncode:
            if b"not found" in said:
                return None
            raise UsageError(f"{command} failed with {done.returncode}")
        try:
            answer = json.loads(said)
            user, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{command} answered something that is no credential") from None
        return Credentials("" if user == _TOKEN_USER else user, secret)


def _keys(registry: str, path: str) -> list[str]:
    """The names an entry may have, most special first: podman has them for repositories too."""
    parts = path.split("/")
    names = ["/".join([registry, *parts[:count]]) for count in range(len(parts), -1, -1)]
    old = [f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/"]
    return [*names, *(_HUB_KEYS if registry == _HUB else ()), *old]


def _entry(entry: Mapping[str, Any], file: Path, name: str) -> Credentials | None:
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return Credentials("", token)
    text = entry.get("auth")
    if not isinstance(text, str) or not text:
        return None
    try:
        user, colon, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise UsageError(f"{file}: auth of {name} is not base64 of name:password")
    return Credentials(user, secret.rstrip("\0"))


def _read(file: Path, warn: OnWarning) -> dict[str, Any] | None:
    """The document in ``file``; None when it is not there, or not the user's own."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
        os.close(fd)
        warn(f"{file} is not a plain file of yours: passed over")
        return None
    with os.fdopen(fd, "rb") as opened:
        data = opened.read(_MAX_FILE_BYTES + 1)
    try:
        document = json.loads(data) if len(data) <= _MAX_FILE_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"{file} is not a JSON object", hint="log in again with docker or podman")
    if status.st_mode & 0o077 and document.get("auths"):
        warn(f"others can read the passwords in {file}; run: chmod 600 {file}")
    return document
