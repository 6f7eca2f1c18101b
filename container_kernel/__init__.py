"""A Jupyter kernel that makes the notebook its own container image.

Build cells become steps; each step is frozen as one layer of an OCI image; every other cell runs
live inside the isolated container made from that image. ``oci`` holds the values, ``store`` keeps
them, ``transfer`` moves them, ``runtime`` turns a root file system into a process, ``build`` turns
steps into layers, ``workbench`` ties one notebook together, ``kernel`` speaks Jupyter. A module
imports only from rooms above its own.

From Python, `Environment` does what cells do; ``%load_ext container_kernel`` brings them into an
ordinary IPython notebook.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import CellFailed as CellFailed
    from .errors import ContainerKernelError as ContainerKernelError
    from .kernel.environment import Environment as Environment
    from .kernel.environment import Output as Output

__version__ = "0.1.0"
__all__ = ["CellFailed", "ContainerKernelError", "Environment", "Output", "__version__"]

_HOMES = {
    "CellFailed": "errors",
    "ContainerKernelError": "errors",
    "Environment": "kernel.environment",
    "Output": "kernel.environment",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: a kernel's start waits for none of it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext container_kernel``."""
    import_module(".kernel.extension", __name__).load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext container_kernel``."""
    import_module(".kernel.extension", __name__).unload(shell)
