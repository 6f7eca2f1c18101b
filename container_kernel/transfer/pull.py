"""Pull: an image of a registry becomes an image of the store.

Layers are fetched side by side and unpacked in their order as they come. What the store has is not
fetched, descriptors' ``urls`` are never looked at, and what says that it is about the image
(signatures, SBOMs, provenance) comes along.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..errors import ImageError, RegistryError
from ..oci.digest import Digest
from ..oci.spec import Descriptor, ImageConfig, Manifest
from ..record import record
from .intake import MAX_INDEX_DEPTH, Intake, check_image, check_types, choose
from .packed import Packed
from .registry_http import Access
from .repository import Document, Repository
from .traffic import OnTraffic, Traffic

if TYPE_CHECKING:
    from ..oci.reference import Reference
    from ..store.store import Store

_SIDE_BY_SIDE = 4
_MAX_REFERRERS = 100
_MAX_REFERRER_BYTES = 256 << 20


@record
class Pulled:
    """What a pull did, or would do: blobs of the image that were fetched and that were here."""

    digest: Digest
    fetched: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]
    referrers: int = 0

    @property
    def fetched_bytes(self) -> int:
        """How many bytes of blobs travelled."""
        return sum(blob.size for blob in self.fetched)


def pull(
    reference: Reference,
    store: Store,
    access: Access,
    *,
    dry_run: bool = False,
    on_traffic: OnTraffic | None = None,
) -> Pulled:
    """Bring the image ``reference`` names into ``store``; naming it there is left to the caller.

    Raises:
        ImageError: something is not what it must be, or there is none for this host.
        RegistryError: the registry cannot be reached, refused, or has no such image.
    """
    named = reference.with_default_tag()
    repository = Repository(named, access)
    pulling = _Pull(repository, store, Traffic(on_traffic))
    try:
        return pulling.run(named, dry_run=dry_run)
    except ImageError as error:
        raise ImageError(f"{named}: {error.message}", hint=error.hint) from error


class _Pull:
    def __init__(self, repository: Repository, store: Store, traffic: Traffic) -> None:
        self._repository = repository
        self._store = store
        self._packed = Packed(store)
        self._traffic = traffic

    def run(self, reference: Reference, *, dry_run: bool) -> Pulled:
        document = self._repository.manifest(
            str(reference.digest or reference.tag), reference.digest
        )
        document = self._for_this_host(document, 0)
        manifest = document.manifest()
        check_types(manifest)
        intake = Intake(self._store, lambda _: None)
        has_all = intake.has(document.digest, manifest)
        missing = [] if has_all else self._missing(manifest)
        present = tuple(one for one in manifest.layers if one not in missing)
        if not dry_run:
            if not has_all:
                self._fetch(document, manifest, missing, intake)
            for layer in manifest.layers:
                self._packed.remember(
                    self._repository.registry, self._repository.path, layer.digest
                )
        referrers = 0 if dry_run else self._referrers(document.digest)
        return Pulled(document.digest, tuple(missing), present, referrers)

    def _for_this_host(self, document: Document, depth: int) -> Document:
        if not document.is_index:
            return document
        if depth == MAX_INDEX_DEPTH:
            raise ImageError(f"its indexes are nested more than {MAX_INDEX_DEPTH} deep")
        chosen = choose(document.index())
        found = self._repository.manifest(str(chosen.digest), chosen)
        if found.media_type != chosen.media_type:
            raise ImageError(
                f"its index says {chosen.media_type!r}, the registry {found.media_type!r}"
            )
        return self._for_this_host(found, depth + 1)

    def _missing(self, manifest: Manifest) -> list[Descriptor]:
        seen = {one.digest: one for one in manifest.layers}
        return [one for one in seen.values() if not self._store.content.has(one.digest)]

    def _fetch(
        self, document: Document, manifest: Manifest, missing: list[Descriptor], intake: Intake
    ) -> None:
        config = self._repository.small_blob(manifest.config, "image config")
        check_image(manifest, ImageConfig.from_json(config))
        self._traffic.begin("pull", len(missing), sum(one.size for one in missing))
        with ThreadPoolExecutor(_SIDE_BY_SIDE, "pull") as threads:
            coming = {one.digest: threads.submit(self._blob, one) for one in missing}
            try:
                intake.put(document.data, manifest, config, _wait_for(coming))
            except BaseException:
                self._traffic.stop()
                threads.shutdown(cancel_futures=True)
                raise
        self._traffic.end()

    def _blob(self, descriptor: Descriptor) -> None:
        """Fetch one blob; once more from its beginning if it was patched together wrongly."""
        for is_second in (False, True):
            with self._repository.blob(descriptor) as download:
                counted = self._traffic.reading(download)
                try:
                    self._store.content.put(
                        counted, expected=descriptor.digest, size=descriptor.size
                    )
                except ImageError:
                    if is_second or not download.was_resumed:
                        raise
                    continue
            self._traffic.finished(descriptor)
            return

    def _referrers(self, digest: Digest) -> int:
        """Fetch what is about the image; an image without it is whole all the same."""
        try:
            listed = self._repository.referrers(digest)[:_MAX_REFERRERS]
        except (RegistryError, ImageError):
            return 0
        return sum(self._referrer(one) for one in listed)

    def _referrer(self, listed: Descriptor) -> bool:
        content = self._store.content
        if content.has(listed.digest):
            return True
        document = self._repository.manifest(str(listed.digest), listed)
        if document.is_index:
            return False
        manifest = document.manifest()
        blobs = (manifest.config, *manifest.layers)
        if sum(blob.size for blob in blobs) > _MAX_REFERRER_BYTES:
            return False
        for blob in blobs:
            if not content.has(blob.digest):
                self._blob(blob)
        content.put(document.data)
        return True


def _wait_for(coming: dict[Digest, Future[None]]) -> Callable[[Descriptor], None]:
    def wait(layer: Descriptor) -> None:
        if layer.digest in coming:
            coming[layer.digest].result()

    return wait
