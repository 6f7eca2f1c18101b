"""Opening: what a kernel's session works with, each part made when it is first needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..build import forecast
from ..config import Config, load
from ..errors import HostError
from ..runtime.host import Host
from ..runtime.live import Live
from ..runtime.namespace import Namespace
from ..runtime.wish import Wish
from ..store.shelf import Shelf

if TYPE_CHECKING:
    from ..build.step import Items, Use
    from ..store.leases import Leases
    from ..workbench import Workbench


class Opening:
    """Everything in ``namespace``, for ``notebook`` if there is one.

    If there is no namespace, its error is raised by whatever needs one.
    """

    def __init__(self, namespace: Namespace | HostError, notebook: Path | None) -> None:
        self.notebook = notebook
        self._namespace = namespace
        self._folder = notebook.parent if notebook else Path.cwd()
        self._leases: Leases | None = None

    @cached_property
    def namespace(self) -> Namespace:
        """Where this process is."""
        if isinstance(self._namespace, HostError):
            raise self._namespace
        return self._namespace

    @cached_property
    def config(self) -> Config:
        """The settings."""
        return load()

    @cached_property
    def host(self) -> Host:
        """What containers are started with."""
        return Host.open(self.namespace, self.config.oci_runtime)

    def early(self, image: str | None) -> tuple[str, Live] | None:
        """A container by what is forecast for this notebook, else for ``image``, and its stage.

        None where nothing is. The store is not asked.

        Raises:
            ContainerKernelError: it cannot be, or may not by what is set here.
        """
        home = self.config.home
        found = forecast.read(home, forecast.name_of(self.notebook, image))
        if found is None:
            return None
        for wanted in filter(None, self.config.least_levels):
            self.host.level.require(wanted)
        shelf = Shelf(home, self.namespace.idmap, userxattr=self.namespace.is_rootless)
        self._leases = shelf.snapshots.leases
        wish = Wish(
            limits=self.config.run_limits({}),
            relaxed=self.config.relaxed(),
            home=self.config.user_home,
        )
        live = Live(self.host, shelf, found.chain_id, found.config, self._folder, wish)
        return found.stage, live

    def workbench(self) -> Workbench:
        """A workbench for the notebook; opens the store."""
        from ..workbench import Workbench

        workbench = Workbench(
            self.config,
            self.namespace,
            self._folder,
            parse=_build_items,
            notebook=self.notebook,
            _host=self.host,
        )
        if self._leases is not None:
            workbench.store.leases.take(self._leases)
        return workbench


def _build_items(code: str) -> Items | Use | None:
    from .magics import build_items

    return build_items(code)
