"""Sweeper: what nobody waits for is removed in a thread of its own.

Taking a container apart (its cgroups, mounts, folders) takes as long as two or three milliseconds,
which is a good part of starting one. What a process that dies does not come to is swept by its
supervisor and by the next one that opens the store.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable

# In place of a queue.Queue, which takes another millisecond to import before a first container.
_actions: deque[Callable[[], object]] = deque()
_waiting = threading.Semaphore(0)
_MOST_TRIES, _AGAIN_S = 3, 0.05


def later(action: Callable[[], object]) -> None:
    """Do it soon, after what was asked for before; again, a few times, should it raise."""
    _actions.append(action)
    _waiting.release()
    _start()


def drain(timeout_s: float = 2.0) -> bool:
    """Wait until all that was asked for is done; False if that takes longer."""
    done = threading.Event()
    later(done.set)
    return done.wait(timeout_s)


def _try(action: Callable[[], object]) -> None:
    """As when this process may open no more files for a while: then whoever sweeps our run folder
    after us finds what is left.
    """
    for _ in range(_MOST_TRIES):
        try:
            action()
        except OSError:
            time.sleep(_AGAIN_S)
        else:
            return


@functools.cache
def _start() -> None:
    def sweep() -> None:
        while True:
            _waiting.acquire()
            _try(_actions.popleft())

    threading.Thread(target=sweep, name="sweeper", daemon=True).start()
