"""Registry client: HTTP to one registry, with patience and without trust.

urllib3 speaks HTTP and TLS; what is decided here is what a registry may make us do. Redirects are
followed by hand: few, never to less security, and the user's credentials stay with the registry's
own host. What fails for a while is tried again, a bounded number of times. Of the clients there
are, none that Python has resumes a broken transfer or bounds what it reads.
"""

from __future__ import annotations

import email.utils
import json
import random
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from .. import __version__
from ..errors import RegistryError
from ..record import field, record
from .credentials import Credentials, Wallet
from .hosts import api_host, is_loopback, is_near, speaks_tls
from .lines import Lines
from .registry_auth import MAX_TOKEN_BYTES, Challenge, authorize

_MAX_REDIRECTS = 5
_SMALL_BYTES = 64 << 10
TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
Body = Callable[[], bytes]


@record(kw_only=True)
class Patience:
    """How long to wait and how often to try; seconds."""

    tries: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    connect_s: float = 10.0
    silence_s: float = 30.0
    """How long a connection may say nothing."""

    def pause_s(self, attempt: int, asked: str | None = None) -> float:
        """How long to wait after the ``attempt``-th failure; ``asked`` is ``Retry-After``."""
        wanted = self.first_pause_s * 2**attempt * random.uniform(0.5, 1.0)
        return float(min(max(wanted, _retry_after_s(asked)), self.longest_pause_s))


@record(kw_only=True)
class Access:
    """How registries are reached: by whose credentials, where plain HTTP is allowed."""

    wallet: Wallet = field(default_factory=Wallet)
    plain_http: tuple[str, ...] = ()
    """Registries (``host`` or ``host:port``) that may speak plain HTTP, besides this host's own."""
    certificates: tuple[Path, ...] = ()
    """Folders as docker's ``certs.d``: one folder per registry, with its ``*.crt`` in it."""
    patience: Patience = field(default_factory=Patience)
    pause: Callable[[float], object] = time.sleep
    """Sleeps; raises when the user wants it to stop."""
    when_stopped: Callable[[Callable[[], object]], object] = lambda cut: None
    """Told what is to be called when the user wants it to stop."""
    warn: Callable[[str], None] = field(default_factory=lambda: lambda _: None)


class Answer:
    """A response being read. Close it, or leave its ``with``."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._kept: bytes | None = None

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end. Raises urllib3's errors when the line breaks."""
        return self._response.read(size)

    def whole(self, limit: int, what: str) -> bytes:
        """All of it.

        Raises:
            RegistryError: longer than ``limit``.
        """
        if self._kept is not None:
            return self._kept
        data = b""
        while chunk := self._response.read(limit + 1 - len(data)):
            data += chunk
            if len(data) > limit:
                raise RegistryError(f"{what} is longer than {limit} bytes")
        return data

    def settle(self) -> Self:
        """Keep what a short answer says, and free the connection for others."""
        try:
            self._kept = self._response.read(_SMALL_BYTES)
        except HTTPError:
            self._kept = b""
        self.close()
        return self

    def close(self) -> None:
        """Free the connection; what would take long to read out is cut off."""
        length = self.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) <= _SMALL_BYTES:
            self._response.drain_conn()
        else:
            self._response.close()
        self._response.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """Requests to one registry, from any thread."""

    def __init__(self, registry: str, path: str, access: Access) -> None:
        self.registry = registry
        self.path = path
        self._access = access
        self._host = api_host(registry)
        self._may_be_plain = is_loopback(self._host) or registry in access.plain_http
        self._lines = Lines()
        access.when_stopped(self._lines.cut)
        context = self._context()
        self._pools = {scheme: self._make_pool(scheme, context) for scheme in ("", "http", "https")}
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._has_looked = False
        is_tls = not self._may_be_plain or speaks_tls(self._host, access.patience.connect_s)
        self._origin = f"{'https' if is_tls else 'http'}://{self._host}"

    def request(
        self,
        method: str,
        place: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        scope: str = "",
        tries: int | None = None,
    ) -> Answer:
        """Ask; whatever is answered comes back, but for passing trouble, redirects and challenges.

        ``place`` is a path of this registry or a URL it gave us.

        Raises:
            RegistryError: it cannot be reached, or fails again and again.
        """
        patience = self._access.patience
        url = self._join(self._origin, place)
        last = (tries or patience.tries) - 1
        for attempt in range(last + 1):
            asked = None
            try:
                answer = self._authorized(method, url, dict(headers or {}), body, scope)
                if answer.status not in TRANSIENT or attempt == last:
                    return answer
                asked = answer.headers.get("Retry-After")
                answer.close()
            except HTTPError as error:
                self.check()
                if attempt == last or isinstance(_reason(error), ssl.SSLError):
                    raise self.unreachable(error) from None
            self._access.pause(patience.pause_s(attempt, asked))
        raise AssertionError("unreachable")

    def pause(self, attempt: int) -> None:
        """Wait as long as after the ``attempt``-th failure."""
        self._access.pause(self._access.patience.pause_s(attempt))

    @property
    def tries(self) -> int:
        """How often something is tried."""
        return self._access.patience.tries

    def check(self) -> None:
        """Raise if the user wants it to stop."""
        self._access.pause(0)

    def unreachable(self, error: Exception) -> RegistryError:
        """What a broken connection is to the user."""
        reason = _reason(error)
        if isinstance(reason, ssl.SSLError):
            why = getattr(reason, "verify_message", "") or reason
            return RegistryError(
                f"{self.registry} is not trusted: {why}",
                hint="have its certificate authority in SSL_CERT_FILE, or in "
                f"~/.config/containers/certs.d/{self.registry}/ca.crt",
            )
        return RegistryError(
            f"{self.registry} cannot be reached: {_words(reason)}",
            hint="check the name and the network, then try again",
        )

    def refused(self, answer: Answer, what: str) -> RegistryError:
        """The error for an answer that is not what was asked for; closes it."""
        status = answer.status
        with answer:
            try:
                said = _first_error(answer.whole(_SMALL_BYTES, "an error"))
            except (HTTPError, RegistryError):
                said = ""
        hint = None
        if status in (401, 403):
            hint = f"log in: podman login {self.registry}, or docker login {self.registry}"
        text = f"{self.registry} answered {status} to {what}" + (f": {said}" if said else "")
        return RegistryError(text, status=status, hint=hint)

    # ------------------------------------------------------------ who we are

    def _authorized(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, scope: str
    ) -> Answer:
        """One request, with one new answer to a challenge if there is one."""
        used = self._tokens.get(scope)
        answer = self._followed(method, url, headers, body, used)
        challenge = answer.headers.get("WWW-Authenticate")
        if answer.status != 401 or not challenge or not self._is_own(answer.url):
            return answer
        answer.close()
        with self._lock:  # one thread asks for all
            if self._tokens.get(scope) == used:
                self._tokens[scope] = self._answer(Challenge.parse(challenge), scope)
        return self._followed(method, url, headers, body, self._tokens[scope])

    def _answer(self, challenge: Challenge, scope: str) -> str:
        if not self._has_looked:
            wallet, warn = self._access.wallet, self._access.warn
            self._credentials = wallet.find(self.registry, self.path, warn)
            self._has_looked = True
        try:
            return authorize(challenge, scope, self._credentials, self._fetch_token)
        except RegistryError as error:
            hint = f"log in: podman login {self.registry}, or docker login {self.registry}"
            raise RegistryError(error.message, status=401, hint=error.hint or hint) from None

    def _fetch_token(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> bytes:
        self._check_url(url, "the place for tokens")
        patience = self._access.patience
        for attempt in range(patience.tries):
            with Answer(self._send(method, url, headers, body), url) as answer:
                if answer.status == 200:
                    return answer.whole(MAX_TOKEN_BYTES, "the token")
                if answer.status not in TRANSIENT:
                    break
            self.pause(attempt)
        raise self.refused(answer, "who we are")

    # ------------------------------------------------------------ where to

    def _followed(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, who: str | None
    ) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            self._check_url(url, "a redirect")
            own = {"Authorization": who} if who and self._is_own(url) else {}
            response = self._send(method, url, headers | own, body)
            target = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not target:
                return Answer(response, url)
            response.drain_conn()
            response.release_conn()
            if method not in ("GET", "HEAD"):
                raise RegistryError(f"{self.registry} sends an upload elsewhere: refused")
            url = self._join(url, target)
        raise RegistryError(f"{self.registry} redirects more than {_MAX_REDIRECTS} times")

    def _join(self, url: str, target: str) -> str:
        try:
            return urljoin(url, target)
        except ValueError:
            raise RegistryError(f"{self.registry} leads to {_shown(target)}: refused") from None

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> urllib3.BaseHTTPResponse:
        common = {"User-Agent": f"container-kernel/{__version__}", "Accept-Encoding": "identity"}
        return self._pool_for(url).request(
            method,
            url,
            body=body,
            headers={**common, **headers},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )

    def _is_own(self, url: str) -> bool:
        """True for the registry's own host and port, and nothing less secure."""
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" == self._origin

    def _check_url(self, url: str, what: str) -> None:
        """Refuse what a registry must not make us look at."""
        parts = urlsplit(url)
        if self._is_own(url):
            return
        try:
            host = parts.hostname or ""
            parts.port  # noqa: B018 - raises when it is no number
        except ValueError:
            host = ""
        allowed = {"https"}
        if self._may_be_plain and not self._origin.startswith("https:"):
            allowed |= {"http"} if is_loopback(parts.netloc) else set()
        if parts.scheme not in allowed or not host or parts.username is not None:
            raise RegistryError(f"{self.registry}: {what} leads to {_shown(url)}: refused")
        if not is_loopback(self._host) and is_near(host):
            raise RegistryError(f"{self.registry}: {what} leads into this host's net: refused")

    # ------------------------------------------------------------ connections

    def _make_pool(self, scheme: str, context: ssl.SSLContext) -> urllib3.PoolManager:
        """Connections to hosts of one kind, through the site's proxy where there is one."""
        patience, environ = self._access.patience, self._access.wallet.environ
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=patience.connect_s, read=patience.silence_s),
            "ssl_context": context,
            "maxsize": 8,
        }
        proxy = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY")
        manager = (
            urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        )
        manager.pool_classes_by_scheme = self._lines.pools
        return manager

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for folder in self._access.certificates:
            for file in sorted((folder / self.registry).glob("*.crt")):
                context.load_verify_locations(cafile=file)
        return context

    def _pool_for(self, url: str) -> urllib3.PoolManager:
        environ = self._access.wallet.environ
        parts = urlsplit(url)
        no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
        is_direct = is_loopback(parts.netloc) or bypass(parts.netloc, {"no": no_proxy})
        return self._pools["" if is_direct else parts.scheme]


def _retry_after_s(text: str | None) -> float:
    """``Retry-After``: seconds or a date; nonsense is nothing."""
    if not text:
        return 0.0
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _reason(error: BaseException) -> BaseException:
    """What is at the bottom of urllib3's error."""
    inside = [getattr(error, "reason", None), error.__cause__, *error.args]
    below = next((one for one in inside if isinstance(one, BaseException)), None)
    return error if below is None else _reason(below)


def _words(reason: BaseException) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason).rpartition(": ")[2] or type(reason).__name__


def _first_error(data: bytes) -> str:
    """The message in a registry's error document, if it is one."""
    try:
        first = json.loads(data)["errors"][0]
        text = f"{first.get('message', '')}" or f"{first.get('code', '')}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:200]


def _shown(url: str) -> str:
    return repr(url.partition("?")[0][:100])
