"""Push: an image of the store goes to a registry; only what is missing there travels.

Every blob is asked for first. One that another repository of the same registry is known to have is
mounted from there; the others are packed and sent side by side. The manifest goes last, so a name
at the registry never means half an image.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..oci.digest import Digest
from ..oci.spec import Descriptor, Manifest
from ..oci.strict_json import canonical
from ..record import record, replace
from .compression import NONE, ZSTD
from .outgoing import Outgoing
from .packed import Packed
from .registry_http import Access
from .repository import Repository, is_artifact_of, referrers_tag, with_referrer
from .traffic import OnTraffic, Traffic

if TYPE_CHECKING:
    from ..oci.reference import Reference
    from ..store.store import Store

THERE, MOUNTED, SENT = "there", "mounted", "sent"
_SIDE_BY_SIDE = 4
_MAX_REFERRER_BYTES = 1 << 20


@record
class Part:
    """One blob of the image: what became of it, or would. ``size`` may be of the unpacked layer."""

    what: str
    digest: Digest
    size: int
    fate: str
    is_packed: bool = True


@record
class Pushed:
    """What a push did, or would do. ``digest`` is the manifest's at the registry."""

    digest: Digest | None
    image_id: Digest
    blobs: tuple[Part, ...]
    referrers: int = 0

    @property
    def sent_bytes(self) -> int:
        """How many bytes of blobs travelled."""
        return sum(blob.size for blob in self.blobs if blob.fate == SENT)


def push(
    image_digest: Digest,
    reference: Reference,
    store: Store,
    access: Access,
    *,
    compression: str = ZSTD,
    dry_run: bool = False,
    on_traffic: OnTraffic | None = None,
) -> Pushed:
    """Send the image to where ``reference`` says.

    Layers built here travel packed with ``compression``; imported ones as they came. So the
    manifest's digest may be another there than here, while the image ID is the same; the store
    keeps that manifest too.

    Raises:
        RegistryError: the registry cannot be reached, or refused.
        StoreError: a layer is missing or damaged.
    """
    named = reference.with_default_tag()
    pushing = _Push(image_digest, named, store, access, compression)
    if dry_run:
        return pushing.forecast()
    return pushing.run(Traffic(on_traffic))


class _Push:
    def __init__(
        self,
        image_digest: Digest,
        reference: Reference,
        store: Store,
        access: Access,
        compression: str,
    ) -> None:
        self._image = Outgoing(store, image_digest)
        self._reference = reference
        self._store = store
        self._packed = Packed(store)
        self._repository = Repository(reference, access)
        self._compression = compression

    def forecast(self) -> Pushed:
        """What would be done; nothing is packed, so the size of a new layer is that unpacked."""
        with ThreadPoolExecutor(_SIDE_BY_SIDE, "push") as threads:
            blobs = list(threads.map(self._fate, self._numbers()))
        return Pushed(None, self._image.manifest.config.digest, tuple(blobs))

    def _fate(self, layer: int) -> Part:
        known = self._known(layer)
        if known is None:
            plain = self._image.manifest.layers[layer]
            return Part(self._name(layer), plain.digest, plain.size, SENT, is_packed=False)
        return Part(self._name(layer), known.digest, known.size, self._where(known.digest))

    def _where(self, digest: Digest) -> str:
        if self._repository.has(digest):
            return THERE
        source = self._packed.source(self._reference.registry, digest)
        return MOUNTED if source and source != self._repository.path else SENT

    def run(self, traffic: Traffic) -> Pushed:
        """Send what is missing, then the manifest, then what is about it."""
        numbers = self._numbers()
        traffic.begin("push", len(numbers) + 1, 0)
        with ThreadPoolExecutor(_SIDE_BY_SIDE, "push") as threads:
            coming = [threads.submit(self._layer, number, traffic) for number in numbers]
            try:
                done = [future.result() for future in coming]
            except BaseException:
                traffic.stop()
                threads.shutdown(cancel_futures=True)
                raise
        packed = {number: one[0] for number, one in zip(numbers, done, strict=True)}
        manifest, data = self._manifest(packed)
        config = self._image.manifest.config
        moved = [*(one[1] for one in done), self._send("config", config, traffic)]
        tag = str(self._reference.digest or self._reference.tag)
        digest = Digest.of(data)
        if self._reference.digest is None or self._reference.digest == digest:
            self._repository.put_manifest(tag, data, manifest.media_type)
        else:
            self._refuse_name(digest)
        self._store.content.put(data)
        traffic.end()
        return Pushed(digest, config.digest, tuple(moved), self._referrers(digest))

    def _refuse_name(self, digest: Digest) -> None:
        wanted = self._reference.digest
        raise UsageError(
            f"packed, the image is {digest}, so it cannot be pushed as {wanted}",
            hint="push it under a tag",
        )

    # ------------------------------------------------------------ layers

    def _numbers(self) -> list[int]:
        """The layers, each blob once."""
        layers = self._image.manifest.layers
        first = {layer.digest: number for number, layer in reversed(list(enumerate(layers)))}
        return sorted(first.values())

    def _name(self, layer: int) -> str:
        return f"layer {layer + 1} of {len(self._image.manifest.layers)}"

    def _is_packed_here(self, layer: int) -> bool:
        plain = self._image.manifest.layers[layer].digest == self._image.config.diff_ids[layer]
        return plain and self._compression != NONE

    def _known(self, layer: int) -> Descriptor | None:
        """How the layer travels; None when that is not known before it is packed."""
        if self._is_packed_here(layer):
            return self._packed.known(self._image.config.diff_ids[layer], self._compression)
        return self._image.manifest.layers[layer]

    def _layer(self, layer: int, traffic: Traffic) -> tuple[Descriptor, Part]:
        known = self._known(layer)
        name = self._name(layer)
        if known is not None and (fate := self._spared(known.digest)):
            traffic.finished(known)
            return known, Part(name, known.digest, known.size, fate)
        if self._is_packed_here(layer):
            known = self._packed.make(self._image, layer, self._compression)
        elif known is not None and not self._store.content.has(known.digest):
            self._packed.restore(self._image, layer)
        assert known is not None
        return known, self._send(name, known, traffic)

    def _spared(self, digest: Digest) -> str | None:
        """Why a blob need not be sent; None when it must."""
        registry, path = self._reference.registry, self._repository.path
        fate = None
        if self._repository.has(digest):
            fate = THERE
        elif (source := self._packed.source(registry, digest)) and source != path:
            fate = MOUNTED if self._repository.mount(digest, source) else None
        if fate:
            self._packed.remember(registry, path, digest)
        return fate

    def _send(self, what: str, blob: Descriptor, traffic: Traffic) -> Part:
        fate = self._spared(blob.digest)
        if fate is None:
            traffic.expect(blob.size)
            with self._store.content.open(blob.digest) as source:
                self._repository.upload(blob, source, traffic.moved)
            self._packed.remember(self._reference.registry, self._repository.path, blob.digest)
        traffic.finished(blob)
        return Part(what, blob.digest, blob.size, fate or SENT)

    def _manifest(self, packed: dict[int, Descriptor]) -> tuple[Manifest, bytes]:
        """The manifest with its layers as they travel; byte for byte ours if none was packed."""
        own = self._image.manifest
        by_digest = {own.layers[number].digest: one for number, one in packed.items()}
        layers = tuple(by_digest[layer.digest] for layer in own.layers)
        if all(new.digest == old.digest for new, old in zip(layers, own.layers, strict=True)):
            return own, self._image.manifest_data
        manifest = replace(own, layers=layers)
        return manifest, manifest.to_json()

    # ------------------------------------------------------------ what is about the image

    def _referrers(self, digest: Digest) -> int:
        """Send the artifacts whose subject is the image; they speak of its digest there."""
        count = 0
        for data in self._artifacts():
            self._referrer(data, digest)
            count += 1
        return count

    def _artifacts(self) -> list[bytes]:
        content = self._store.content
        small = [blob for blob in content.walk() if blob.size <= _MAX_REFERRER_BYTES]
        known = str(self._image.digest).encode()
        found = []
        for blob in small:
            with content.open(blob.digest) as file:
                data = file.read()
            if data[:1] == b"{" and known in data and is_artifact_of(data, self._image.digest):
                found.append(data)
        return found

    def _referrer(self, data: bytes, digest: Digest) -> None:
        document = json.loads(data)
        if document["subject"]["digest"] != str(digest):
            size = self._store.content.size(digest)
            document["subject"] |= {"digest": str(digest), "size": size}
            data = canonical(document)
        manifest = Manifest.from_json(data)
        silent = Traffic(None)
        for blob in (manifest.config, *manifest.layers):
            self._send("referrer", blob, silent)
        name = str(Digest.of(data))
        if self._repository.put_manifest(name, data, manifest.media_type):
            return
        # The registry keeps no list of its own: by the specification's tag, then.
        tag = referrers_tag(digest)
        described = Descriptor(
            manifest.media_type,
            Digest.of(data),
            len(data),
            annotations=manifest.annotations,
            extra={"artifactType": document.get("artifactType") or manifest.config.media_type},
        )
        listing = with_referrer(self._repository.find_manifest(tag), described)
        self._repository.put_manifest(tag, listing, "application/vnd.oci.image.index.v1+json")
