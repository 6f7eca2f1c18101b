"""Opening: a notebook's builder, put together from its settings. Imported with the first step."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LockBroken
from ..oci.digest import Digest
from ..record import record
from ..runtime.host import Host
from ..store.store import Store
from .builder import Builder
from .history import History
from .journal import Journal
from .ledger import Ledger
from .progress import Progress
from .registries import Registries
from .workplace import Workplace

if TYPE_CHECKING:
    from ..config import Config
    from .site import Site


@record(kw_only=True)
class Surroundings:
    """The notebook a builder works for, and what it asks of others; as `Builder` has it.

    ``is_twin`` is the builder that makes everything once more to compare it: it takes what a lock
    names, and whether the layers are those of the lock is for others to see.
    """

    directory: Path
    notebook: Path | None
    use_cache: bool
    is_twin: bool
    other_notebook: Callable[[Path], Progress]
    stage_chain: Callable[[str], Digest]


def open_builder(host: Host, store: Store, config: Config, around: Surroundings) -> Builder:
    """The builder of one notebook.

    Raises:
        LockBroken: the notebook is to be held to its lock, and that cannot be used.
    """

    def collect() -> Site:
        from .site import collect

        return collect(config.environ, config.user_home)

    return Builder(
        Workplace(host, store, collect, config.build_limits, config.grants, around.notebook),
        around.directory,
        config.base_folders,
        _ledger(store, config, around),
        Registries(config.environ, config.user_home, config.plain_http),
        use_cache=around.use_cache,
        other_notebook=around.other_notebook,
        stage_chain=around.stage_chain,
    )


def _ledger(store: Store, config: Config, around: Surroundings) -> Ledger:
    notebook = around.notebook
    held = None
    if config.is_locked and notebook is not None:
        from . import lock, lock_roots  # for those who are held to one

        held = lock.read(notebook)
        if held is None:
            raise LockBroken(f"{notebook.name} has no lock: {lock.path_of(notebook).name}")
        if held.platform != os.uname().machine:
            raise LockBroken(
                f"the lock of {notebook.name} is for {held.platform}, this is {os.uname().machine}",
                hint="build without --locked here, or write the lock anew",
            )
        if not around.is_twin:
            lock_roots.note(store, notebook, held)
    history = History(store.home, notebook) if notebook is not None else None
    return Ledger(Journal(store.home), history, held, must_match=not around.is_twin)
