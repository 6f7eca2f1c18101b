"""Workplace: what every step of a build shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from .grants import Grants

if TYPE_CHECKING:
    from pathlib import Path

    from ..oci.idmap import IdMap
    from ..runtime.host import Host
    from ..runtime.lent import Lent
    from ..runtime.limits import Limits
    from ..store.store import Store
    from .site import Site

_NO_GRANTS = Grants()


class Workplace:
    """Where steps run and layers are kept, and what steps may use.

    ``collect`` says what the host knows of registries; it is asked once, by the first step that
    runs.
    """

    def __init__(
        self,
        host: Host,
        store: Store,
        collect: Callable[[], Site],
        limits: Limits,
        grants: Grants = _NO_GRANTS,
        notebook: Path | None = None,
    ) -> None:
        self.host = host
        self.store = store
        self.limits = limits
        self.grants = grants
        self.notebook = notebook
        self._collect = collect

    @property
    def lent(self) -> Lent | None:
        """Ids that this host lends to containers."""
        return self.host.lends(self.store.home)

    @property
    def idmap(self) -> IdMap:
        """How ids of images are in containers."""
        return self.lent.idmap if self.lent else self.store.idmap

    @cached_property
    def site(self) -> Site:
        """What the host knows about reaching package registries."""
        return self._collect()
