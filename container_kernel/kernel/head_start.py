"""Head start: the inner kernel a notebook had last is started before anything else is loaded.

What the OCI runtime and the inner kernel need of time, this process needs as well, to import what
it answers front ends with. Where the notebook was built before, both happen at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from .launch import Launched, launch
from .objects import Dict, parse_object

if TYPE_CHECKING:
    from ..runtime.live import Live
    from ..workbench import Workbench
    from .opening import Opening

_PATIENCE_S = 0.05  # more is not worth it: all else waits as well


class HeadStart:
    """Starts in a thread what the workbench had last, else ``image``, and opens it. Never fails.

    What that was is forecast, so that the OCI runtime is at work before there is a workbench to be
    asked; where that then says otherwise, another is started. Whatever is wrong is told by the
    first cell, which needs the same. ``is_guess`` says that the cells may well want another image:
    what it has last is not this notebook's.
    """

    def __init__(
        self, opening: Opening, image: str | None = None, *, is_guess: bool = False
    ) -> None:
        self.workbench: Workbench | None = None
        self.is_guess = is_guess
        self.info: Dict = {}
        self._start: _Start | None = None
        early = found = None
        with suppress(Exception):
            early = opening.early(image)
            if early is not None:
                self._start = _Start(*early)
        with suppress(Exception):
            self.workbench = opening.workbench()
            found = self.workbench.anticipate(image, early)
        if found != early:
            was, self._start = self._start, None
            if found is not None:
                self._start = _Start(*found, instead_of=was)
            elif was is not None:
                threading.Thread(target=was.undo, daemon=True).start()
        if found is not None and self.workbench is not None:
            self.info = parse_object(self.workbench.store.index.kernel(found[1].chain_id) or "")

    def when_over(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` once `wait` need not wait, before it returns to whoever waits already."""
        if self._start is None:
            tell()
        else:
            self._start.when_over(tell)

    @property
    def is_starting(self) -> bool:
        """Whether an inner kernel was there to be started, be it up by now or not."""
        return self._start is not None

    def wait(self) -> tuple[str, Launched] | None:
        """The stage and its inner kernel, once that was started; None when there is none."""
        launched = self._start.wait() if self._start is not None else None
        return (self._start.stage, launched) if self._start and launched else None


class _Start:
    """The start of an inner kernel in a thread, once ``instead_of`` is undone."""

    def __init__(self, stage: str, live: Live, *, instead_of: _Start | None = None) -> None:
        self.stage = stage
        self._live = live
        self._launched: Launched | None = None
        self._spawned = threading.Event()
        self._lock = threading.Lock()
        self._is_over = False
        self._tell: Callable[[], object] = lambda: None
        live.on_spawn(self._spawned.set)
        self._thread = threading.Thread(target=self._run, args=(instead_of,), daemon=True)
        self._thread.start()
        self._spawned.wait(_PATIENCE_S)  # from then on both have something to do

    def _run(self, instead_of: _Start | None) -> None:
        try:
            if instead_of is not None:
                instead_of.undo()
            self._launched = launch(self._live)
        except Exception:
            self._live.stop()
        finally:
            self._spawned.set()
            with self._lock:
                self._is_over = True
                self._tell()

    def when_over(self, tell: Callable[[], object]) -> None:
        """See `HeadStart.when_over`."""
        with self._lock:
            self._tell = tell
            if self._is_over:
                tell()

    def wait(self) -> Launched | None:
        """What was started, or None where that failed."""
        self._thread.join()
        return self._launched

    def undo(self) -> None:
        """End what was started, which nobody has taken up."""
        launched = self.wait()
        if launched is not None:
            launched.forget()
        self._live.close()
