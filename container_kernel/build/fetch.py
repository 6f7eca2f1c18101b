"""Fetch: bring a file from a URL into the store, where its digest names it."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from typing import IO

from ..errors import DigestMismatch, StepFailed
from ..oci.digest import Digest
from .cancel import Cancel
from .site import Site
from .workplace import Workplace

_TIMEOUT_S = 60


def fetch(url: str, digest: Digest, place: Workplace, cancel: Cancel) -> None:
    """Download ``url``; when this returns the store has a blob called ``digest``.

    Raises:
        DigestMismatch: the bytes are others.
        StepFailed: they could not be fetched.
    """
    try:
        with _opener(place.site).open(url, timeout=_TIMEOUT_S) as answer:
            blob = place.store.content.put(_Watched(answer, cancel))
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise StepFailed(
            f"cannot fetch {url}: {reason}",
            exit_code=None,
            hint="check the URL and the network, then run the cell again",
        ) from error
    if blob.digest != digest:
        place.store.content.delete(blob.digest)
        raise DigestMismatch(url, str(digest), str(blob.digest))


def _opener(site: Site) -> urllib.request.OpenerDirector:
    """What fetches a URL as this host does: its proxies, its certificates."""
    context = ssl.create_default_context(cafile=site.ca_bundle)
    names = [name for name in site.env if name.endswith("_proxy")]
    proxies = {name.removesuffix("_proxy"): site.env[name] for name in names}
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )


class _Watched:
    """A download that stops when the build does."""

    def __init__(self, source: IO[bytes], cancel: Cancel) -> None:
        self._source = source
        self._cancel = cancel

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        self._cancel.check()
        return self._source.read(size)
