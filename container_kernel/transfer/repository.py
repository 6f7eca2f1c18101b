"""Repository: what one repository of a registry holds, by the OCI distribution specification.

Documents that come out of it have the digest and the size they were asked for by, or are an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from ..errors import ImageError, RegistryError
from ..oci.digest import Digest
from ..oci.spec import Descriptor, Index, Manifest, MediaType
from ..oci.strict_json import MAX_BYTES, parse
from ..record import record
from .download import Download
from .hosts import api_path
from .registry_http import Access, Answer, Client
from .upload import Upload, is_right

if TYPE_CHECKING:
    from io import BufferedReader

    from ..oci.reference import Reference

_GENERIC_TYPES = {"", "application/json", "text/plain", "application/octet-stream"}
_ACCEPT = ", ".join(sorted(MediaType.MANIFESTS | MediaType.INDEXES))


@record
class Document:
    """A manifest or index as a registry gave it."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        """What its bytes say, whatever the registry said."""
        return Digest.of(self.data)

    @property
    def is_index(self) -> bool:
        """True when it lists manifests."""
        return self.media_type in MediaType.INDEXES

    def manifest(self) -> Manifest:
        """Read as a manifest."""
        return Manifest.from_json(self.data, media_type=self.media_type)

    def index(self) -> Index:
        """Read as an index."""
        return Index.from_json(self.data, media_type=self.media_type)


class Repository:
    """One repository, reached by ``access``. Any thread may use it."""

    def __init__(self, reference: Reference, access: Access) -> None:
        self.registry = reference.registry
        self.path = api_path(reference.registry, reference.path)
        self._client = Client(reference.registry, self.path, access)
        self._pull = f"repository:{self.path}:pull"
        self._push = f"repository:{self.path}:pull,push"

    # ------------------------------------------------------------ out of it

    def manifest(self, name: str, expected: Descriptor | Digest | None = None) -> Document:
        """The manifest or index under a tag or digest.

        Raises:
            ImageError: its bytes are not what ``expected`` says, or it is of no known kind.
            RegistryError: there is none.
        """
        document = self.find_manifest(name, expected)
        if document is None:
            raise RegistryError(
                f"there is no {self.registry}/{self.path}:{name}",
                status=404,
                hint="check the name and the tag; private repositories need a login",
            )
        return document

    def find_manifest(
        self, name: str, expected: Descriptor | Digest | None = None
    ) -> Document | None:
        """The same; None when there is none of that name."""
        answer, data = self._small(f"manifests/{name}", {"Accept": _ACCEPT}, f"manifest {name}")
        if answer.status == 404:
            return None
        _compare(data, expected, f"manifest {name[:19]}")
        stated = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if stated in _GENERIC_TYPES:
            stated = str(parse(data, "manifest").get("mediaType", ""))
        if stated not in MediaType.MANIFESTS | MediaType.INDEXES:
            raise ImageError(f"{name} is a {stated[:80]!r}, which is no image")
        return Document(data, stated)

    def small_blob(self, descriptor: Descriptor, what: str) -> bytes:
        """A blob of at most 4 MiB, checked."""
        if descriptor.size > MAX_BYTES:
            raise ImageError(f"{what} is longer than {MAX_BYTES >> 20} MiB")
        _, data = self._small(f"blobs/{descriptor.digest}", {}, what)
        _compare(data, descriptor, what)
        return data

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Download]:
        """A blob's bytes, not yet checked; they stop at the size it has."""
        download = Download(self._client, self._url(f"blobs/{descriptor.digest}"), descriptor)
        try:
            yield download
        finally:
            download.close()

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """What says that it is about the manifest ``digest``: by the API, else by its tag."""
        answer, data = self._small(f"referrers/{digest}", {}, "the list of referrers")
        if answer.status == 200 and MediaType.INDEX in answer.headers.get("Content-Type", ""):
            return Index.from_json(data, media_type=MediaType.INDEX).manifests
        found = self.find_manifest(referrers_tag(digest))
        return found.index().manifests if found and found.is_index else ()

    def _small(self, place: str, headers: dict[str, str], what: str) -> tuple[Answer, bytes]:
        """A whole small answer, asked for again when the line breaks."""
        last = self._client.tries - 1
        for attempt in range(last + 1):
            answer = self._client.request(
                "GET", self._url(place), headers=headers, scope=self._pull
            )
            if answer.status not in (200, 404):
                raise self._client.refused(answer, f"a request for {what}")
            try:
                with answer:
                    return answer, answer.whole(MAX_BYTES, what)
            except HTTPError as error:
                if attempt == last:
                    raise self._client.unreachable(error) from None
            self._client.pause(attempt)
        raise AssertionError("unreachable")

    # ------------------------------------------------------------ into it

    def has(self, digest: Digest, kind: str = "blobs") -> bool:
        """True when the registry says it has the blob (or manifest) here."""
        with self._client.request(
            "HEAD",
            self._url(f"{kind}/{digest}"),
            headers={"Accept": _ACCEPT} if kind == "manifests" else {},
            scope=self._push,
        ) as answer:
            if answer.status in (200, 404):
                return answer.status == 200
            raise self._client.refused(answer, f"a question for {digest.short}")

    def mount(self, digest: Digest, source: str) -> bool:
        """Ask to have the blob from another repository too; False when the registry will not."""
        answer = self._client.request(
            "POST",
            self._url(f"blobs/uploads/?mount={digest}&from={source}"),
            scope=f"{self._push} repository:{source}:pull",
        )
        with answer:
            if answer.status == 202 and (place := answer.headers.get("Location")):
                self._client.request("DELETE", place, scope=self._push, tries=1).close()
            return answer.status == 201 and is_right(answer, digest)

    def upload(
        self, descriptor: Descriptor, source: BufferedReader, on_sent: Callable[[int], object]
    ) -> None:
        """Send a blob, in pieces; ``on_sent`` is told of each.

        Raises:
            BlobDamaged: our own bytes are not what the descriptor says.
            RegistryError: it did not arrive.
        """
        Upload(self._client, self._url("blobs/uploads/"), descriptor, source, on_sent).send()

    def put_manifest(self, name: str, data: bytes, media_type: str) -> bool:
        """Publish a manifest; True when the registry minds its ``subject`` itself.

        Raises:
            RegistryError: it did not take it.
        """
        with self._client.request(
            "PUT",
            self._url(f"manifests/{name}"),
            headers={"Content-Type": media_type},
            body=data,
            scope=self._push,
        ) as answer:
            if answer.status != 201 or not is_right(answer, Digest.of(data)):
                raise self._client.refused(answer, f"the manifest {name[:19]}")
            return "OCI-Subject" in answer.headers

    def _url(self, place: str) -> str:
        return f"/v2/{self.path}/{place}"


def referrers_tag(digest: Digest) -> str:
    """Where registries without the referrers API keep the list (distribution-spec, 1.1)."""
    return f"sha256-{digest.hex}"


def with_referrer(document: Document | None, referrer: Descriptor) -> bytes:
    """The list under `referrers_tag` with one more in it."""
    known = document.index().manifests if document and document.is_index else ()
    rest = tuple(one for one in known if one.digest != referrer.digest)
    return Index((*rest, referrer), media_type=MediaType.INDEX).to_json()


def _compare(data: bytes, expected: Descriptor | Digest | None, what: str) -> None:
    if isinstance(expected, Descriptor):
        if len(data) != expected.size:
            raise ImageError(f"{what} has {len(data)} bytes, its descriptor says {expected.size}")
        expected = expected.digest
    if expected is not None and (found := Digest.of(data)) != expected:
        raise ImageError(f"{what} hashes to {found.short}, not to {expected.short}")


def is_artifact_of(data: bytes, digest: Digest) -> bool:
    """True when the document's ``subject`` is the manifest ``digest``."""
    try:
        subject = json.loads(data)["subject"]
        return bool(subject["digest"] == str(digest))
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
