"""Owners: who run cells are on this host, and how they come to own the notebook's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.digest import Digest
from ..oci.idmap import IdMap
from ..record import record, replace
from ..store.shelf import Shelf
from . import account
from .account import Account
from .host import Host, swapping_userns

if TYPE_CHECKING:
    from .lent import Lent


@record
class Owners:
    """The user of run cells, and with what ids; ``on_disk`` is how the store writes ids."""

    account: Account
    on_disk: IdMap
    lent: Lent | None

    @classmethod
    def of(
        cls, host: Host, store: Shelf, chain: Digest, account: Account, *, in_memory: bool
    ) -> Owners:
        """Of containers on the image named ``chain``; what they write may be ``in_memory``."""
        lent = host.lends(store.home)
        if lent:
            layers = store.snapshots.chain(chain)
            is_slug = not all(layer.path.is_relative_to(store.home) for layer in layers)
            if is_slug or (in_memory and not lent.has_memory):
                lent = None
        return cls(account, store.idmap, lent)

    @property
    def idmap(self) -> IdMap:
        """How ids of the image are in its container."""
        return self.lent.idmap if self.lent else self.on_disk

    @property
    def uid(self) -> int:
        """The user's id on this host."""
        return self.idmap.to_disk(self.account.user.uid)


def bind_work(host: Host, directory: Path, owners: Owners) -> tuple[Path, Owners]:
    """Bind the notebook's folder so that what the user inside writes there is its owner's.

    Without root the user namespace does that already. Root shifts owners in the mount; where the
    file system cannot, the process must be uid 0 itself, still without capabilities.
    """
    if not host.namespace.is_rootless:
        try:
            shift = swapping_userns(directory.stat(), owners.uid)
            return host.bind(directory, readonly=False, shift=shift), owners
        except OSError:
            owners = replace(owners, account=account.ROOT, lent=None)
    return host.bind(directory, readonly=False), owners
