"""The one thread that calls the workbench, so that the loop always answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from .loop import Loop

Job = Callable[[], Any]
Done = Callable[[Any, BaseException | None], object]


class Worker:
    """Runs jobs in the order they were given; tells the loop how each ended."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="workbench", daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Done) -> None:
        """Run ``job`` in the thread, then ``done(result, error)`` in the loop."""
        self._jobs.put((job, done))

    def finish(self, timeout_s: float) -> bool:
        """Let the jobs given so far end; False if they take longer."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            result, error = None, None
            try:
                result = job()
            except BaseException as caught:
                error = caught
            self._loop.call_soon(lambda d=done, r=result, e=error: d(r, e))  # type: ignore[misc]
