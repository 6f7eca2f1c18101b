"""Server extension: a process waits for the server's first kernel, too (see `spare`).

Only where something was built before: whoever has not yet used a notebook of ours has no process.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel

from ..config import load
from ..errors import UsageError
from .provisioner import SpareProvisioner

_KERNEL = "container"
_STARTED_S = 2.0
"""Until then the processors are the server's, which also says in the environment who it is."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    with suppress(UsageError):  # which the first cell says
        if SpareProvisioner(config=server.config).keep_spare and load().home.exists():
            server.io_loop.call_later(_STARTED_S, partial(_order, server.kernel_spec_manager))


def _order(specs: Any) -> None:
    with suppress(NoSuchKernel):
        argv = specs.get_kernel_spec(_KERNEL).argv
        SpareProvisioner.order([sys.executable, *argv[1:]], dict(os.environ))
