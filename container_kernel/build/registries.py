"""Registries: how this user reaches them, and bases that come from one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError, UsageError
from ..oci.digest import Digest
from ..record import field, record
from .cancel import Cancel

if TYPE_CHECKING:
    from ..oci.reference import Reference
    from ..store.store import Store
    from ..transfer.registry_http import Access
    from ..transfer.traffic import Moved


@record
class Registries:
    """The user's environment, as far as registries are concerned."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    user_home: Path = Path("/")
    plain_http: tuple[str, ...] = ()

    def access(self, cancel: Cancel, warn: Callable[[str], None]) -> Access:
        """How to reach them; ``cancel`` stops it, ``warn`` is told what is odd."""
        from ..transfer.credentials import Wallet  # urllib3 is for those who travel
        from ..transfer.registry_http import Access

        return Access(
            wallet=Wallet(self.environ, self.user_home),
            plain_http=self.plain_http,
            certificates=tuple(self._certificates()),
            pause=cancel.pause,
            when_stopped=cancel.when_set,
            warn=warn,
        )

    def pull(
        self, reference: Reference, store: Store, on_log: Callable[[str], None], cancel: Cancel
    ) -> Digest:
        """Bring an image into the store and give it there the name it has at the registry."""
        from ..transfer.pull import pull

        named = reference.with_default_tag()
        on_log(f"pulling {named}\n")

        def tell(moved: Moved) -> None:
            if moved.finished is not None:
                on_log(f"layer {moved.blobs} of {moved.of_blobs}: {moved.finished.size} bytes\n")

        access = self.access(cancel, lambda text: on_log(f"{text}\n"))
        pulled = pull(named, store, access, on_traffic=tell)
        if named.tag:
            store.tags.set(f"{named.repository}:{named.tag}", pulled.digest)
        return pulled.digest

    def _certificates(self) -> Iterator[Path]:
        """Podman's and docker's folders of certificates."""
        own = Path(self.environ.get("XDG_CONFIG_HOME") or self.user_home / ".config")
        yield own / "containers/certs.d"
        yield from (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def remote(text: str) -> Reference | None:
    """``text`` as the name of an image at a registry; None when it names none."""
    from ..oci.reference import Reference  # for those who look beyond the store

    try:
        reference = Reference.parse(text)
    except ImageError:
        return None
    return reference if reference.registry else None


def needed(text: str) -> Reference:
    """The same, where it must name one.

    Raises:
        UsageError: it does not.
        ImageError: it is no reference at all.
    """
    from ..oci.reference import Reference

    reference = Reference.parse(text)
    if not reference.registry:
        raise UsageError(
            f"{text!r} does not say which registry",
            hint=f"put its host in front, as in localhost:5000/{text} or docker.io/{text}",
        )
    return reference
