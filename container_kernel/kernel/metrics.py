"""Metrics: the meters of this kernel's containers, in a file that a collector reads.

As node_exporter's textfile collector wants it: a file of its own, whole at any moment, gone with
the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ..runtime import meter
from ..runtime.container import Container
from .loop import Loop, Timer

INTERVAL_S = 15.0


class Metrics:
    """Writes ``folder/container_kernel_NAME.prom`` while there are containers."""

    def __init__(
        self, loop: Loop, folder: Path, name: str, running: Callable[[], Mapping[str, Container]]
    ) -> None:
        self._loop = loop
        self._file = folder / f"container_kernel_{name}.prom"
        self._labels = {"kernel": name}
        self._running = running
        self._timer: Timer | None = None

    def start(self) -> None:
        """Write now, and again and again."""
        if self._timer is None:
            self._write()

    def _write(self) -> None:
        uses = {
            stage: meter.read(container)
            for stage, container in self._running().items()
            if container.poll() is None
        }
        new = self._file.with_suffix(".new")
        with suppress(OSError):  # a folder that is away must not stop the kernel
            new.write_text(meter.prometheus(uses, self._labels))
            os.replace(new, self._file)
        self._timer = self._loop.call_later(INTERVAL_S, self._write)

    def close(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()
            with suppress(OSError):
                self._file.unlink()
