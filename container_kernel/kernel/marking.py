"""Marking: the environment a cell ran in, for the metadata of its reply.

Looked up once per image and session; per cell only two counters of the host kernel are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .wire import Dict

if TYPE_CHECKING:
    from .inner import Inner

KEY = "container_kernel"
"""What the environment is called in a reply's metadata, and in a cell's."""


class Marker:
    """Knows the environment of the cell that has just run in an inner kernel."""

    def __init__(self) -> None:
        self._known: tuple[object, Dict] = (None, {})
        self._cpu: dict[str, float] = {}

    def start(self, inner: Inner) -> None:
        """An inner kernel is ready: what it used until now is no cell's."""
        used = inner.container.used_so_far()
        if used is not None:
            self._cpu[inner.container.name] = used.cpu_seconds

    def mark(self, inner: Inner) -> Dict:
        """The environment of the cell that ends now."""
        live = inner.live
        if live.image is None:
            return {}
        key = (inner, live.image)
        if self._known[0] != key:
            self._known = key, _environment(inner)
        measured: Dict = {}
        used = inner.container.used_so_far()
        if used is not None:
            name = inner.container.name
            before, self._cpu[name] = self._cpu.get(name, 0.0), used.cpu_seconds
            measured = {
                "cpu_seconds": round(used.cpu_seconds - before, 3),
                "peak_memory_bytes": used.peak_memory_bytes,
            }
        return {KEY: {**self._known[1], **measured}}


def _environment(inner: Inner) -> Dict:
    live, container, limits = inner.live, inner.container, inner.live.limits
    language = inner.info.get("language_info", {})
    names = ("implementation", "implementation_version")
    return {
        "image": str(live.image),
        "stage": live.stage,
        "kernel": _joined(inner.info.get(name) for name in names),
        "language": _joined(language.get(name) for name in ("name", "version")),
        "limits": {
            "memory_bytes": container.memory_bytes,
            "pids": limits.pids if container.memory_bytes else None,
            "cpus": limits.cpus if container.memory_bytes else None,
        },
        "isolation": live.isolation,
    }


def _joined(words: Iterable[object]) -> str:
    return " ".join(str(word) for word in words if word)
