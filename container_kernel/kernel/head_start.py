"""Head start: the inner kernel a notebook had last is started before anything else is loaded.

What the OCI runtime and the inner kernel need of time, this process needs as well, to import what
it answers front ends with. Where the notebook was built before, both happen at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .launch import Launched, launch
from .wire import Dict, parse_object

if TYPE_CHECKING:
    from ..runtime.live import Live
    from ..workbench import Workbench


_PATIENCE_S = 0.05  # more is not worth it: all else waits as well


class HeadStart:
    """Opens the workbench, and starts in a thread what it had last, else ``image``. Never fails.

    Whatever is wrong is told by the first cell, which needs the same. ``is_guess`` says that the
    cells may well want another: what it has last is not this notebook's.
    """

    def __init__(
        self,
        make_workbench: Callable[[], Workbench],
        image: str | None = None,
        *,
        is_guess: bool = False,
    ) -> None:
        self.workbench: Workbench | None = None
        self.is_guess = is_guess
        self.info: Dict = {}
        self._stage = ""
        self._launched: Launched | None = None
        self._thread: threading.Thread | None = None
        self._spawned = threading.Event()
        self._lock = threading.Lock()
        self._is_over = False
        self._tell: Callable[[], object] = lambda: None
        try:
            self.workbench = make_workbench()
            found = self.workbench.anticipate(image)
        except Exception:
            return
        if found is not None:
            self._stage, live = found
            self.info = parse_object(self.workbench.kernel_of(live.chain_id) or "")
            self.workbench.host.runtime.on_spawn = self._spawned.set
            self._thread = threading.Thread(target=self._launch, args=(live,), daemon=True)
            self._thread.start()
            self._spawned.wait(_PATIENCE_S)  # from then on both have something to do

    def _launch(self, live: Live) -> None:
        try:
            self._launched = launch(live)
        except Exception:
            live.stop()
        finally:
            self._spawned.set()
            with self._lock:
                self._is_over = True
                self._tell()

    def when_over(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` once `wait` need not wait, before it returns to whoever waits already."""
        with self._lock:
            self._tell = tell
            if self._is_over or self._thread is None:
                tell()

    @property
    def is_starting(self) -> bool:
        """Whether an inner kernel was there to be started, be it up by now or not."""
        return self._thread is not None

    def wait(self) -> tuple[str, Launched] | None:
        """The stage and its inner kernel, once that was started; None when there is none."""
        if self._thread is not None:
            self._thread.join()
        return (self._stage, self._launched) if self._launched else None
