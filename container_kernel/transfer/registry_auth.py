"""Registry authorisation: answers to challenges, as the distribution token specification has them.

A registry may send us elsewhere for a token, and the user's password goes along: so only over TLS,
or within this host. Challenges and tokens are bounded, and each is asked for once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from ..errors import RegistryError
from ..record import record
from .credentials import Credentials

MAX_TOKEN_BYTES = 1 << 20
_MAX_CHALLENGE = 8 << 10
_MAX_TOKEN = 64 << 10
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"\\]{0,4096})"|([^\s",]{1,4096}))')
_TOKEN = re.compile(r"[\x21-\x7e]+")

FetchToken = Callable[[str, str, bytes | None, Mapping[str, str]], bytes]
"""(method, url, body, headers) to the bytes of the answer; it refuses URLs that are not allowed."""


@record
class Challenge:
    """What a registry wants to know: its scheme, in lower case, and parameters."""

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Read ``WWW-Authenticate``.

        Raises:
            RegistryError: too long, or neither Basic nor Bearer.
        """
        if len(header) > _MAX_CHALLENGE:
            raise RegistryError("the registry's challenge is too long")
        scheme, _, rest = header.strip().partition(" ")
        if scheme.lower() not in ("basic", "bearer"):
            raise RegistryError(f"the registry wants to know who we are by {scheme[:30]!r}")
        found = {name.lower(): one or other for name, one, other in _PARAMETER.findall(rest)}
        return cls(scheme.lower(), found)


def authorize(
    challenge: Challenge, scope: str, credentials: Credentials | None, fetch: FetchToken
) -> str:
    """The ``Authorization`` header that answers ``challenge``.

    Raises:
        RegistryError: there are no credentials, or no token was given.
    """
    if challenge.scheme == "basic":
        if credentials is None or not credentials.user:
            raise RegistryError("the registry wants a name and a password")
        return credentials.basic
    realm = challenge.parameters.get("realm", "")
    if not realm:
        raise RegistryError("the registry's challenge names no place for tokens")
    service = challenge.parameters.get("service", "")
    if credentials is not None and not credentials.user:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.secret,
            "service": service,
            "scope": scope,
            "client_id": "container-kernel",
        }
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return _token(fetch("POST", realm, urlencode(form).encode(), kind))
    query = urlencode(
        [("service", service), *(("scope", one) for one in scope.split())], quote_via=quote
    )
    headers = {"Authorization": credentials.basic} if credentials else {}
    sign = "&" if "?" in realm else "?"
    return _token(fetch("GET", f"{realm}{sign}{query}", None, headers))


def _token(data: bytes) -> str:
    try:
        answer = json.loads(data)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, RecursionError, AttributeError):
        token = None
    if not isinstance(token, str) or len(token) > _MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise RegistryError("what was to be a token for the registry is none")
    return f"Bearer {token}"
