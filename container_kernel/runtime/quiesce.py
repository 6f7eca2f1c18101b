"""Quiesce: all processes of a container stand still, and go on as if nothing had been.

By the freezer of cgroup v2 where the container has one: a process does not notice. Else by
SIGSTOP, which its parent could see. Either way SIGKILL still works.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import HostError
from .container import Container
from .processes import members, stat_fields

_PATIENCE_S = 10.0
_POLL_S = 0.0005
_STOPPED = frozenset("TtZX")


@contextmanager
def quiesced(container: Container) -> Iterator[list[int]]:
    """Stop everything in ``container`` for as long as the block takes; its processes' ids.

    Raises:
        HostError: something in there cannot be stopped; everything goes on.
    """
    go_on = stop(container)
    try:
        yield members(container.pid)
    finally:
        go_on()


def stop(container: Container) -> Callable[[], None]:
    """Stop everything in ``container``; returns what lets it go on, to be called once.

    Raises:
        HostError: something in there cannot be stopped; everything goes on.
    """
    folder = container.freezer
    return _stop_by_signal(container.pid) if folder is None else _stop_by_cgroup(folder)


def _stop_by_cgroup(folder: Path) -> Callable[[], None]:
    """By the freezer of cgroup v2."""
    file = folder / "cgroup.freeze"

    def is_stopped() -> bool:
        return "frozen 1" in (folder / "cgroup.events").read_text().splitlines()

    def go_on() -> None:
        with suppress(OSError):  # it may have ended
            file.write_text("0")

    try:
        file.write_text("1")
        _wait_until(is_stopped)
    except OSError as error:
        go_on()
        raise HostError(f"its processes cannot be stopped: {error.strerror}") from error
    except BaseException:
        go_on()
        raise
    return go_on


def _stop_by_signal(pid: int) -> Callable[[], None]:
    """By SIGSTOP; what was stopped already stays so afterwards."""
    stopped: list[int] = []

    def stop_new() -> bool:
        """True when everybody stands still, and nobody new was found."""
        new = [one for one in members(pid) if one not in stopped and not _is_still(one)]
        for one in new:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
                stopped.append(one)
        return not new and all(map(_is_still, stopped))

    def go_on() -> None:
        for one in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)

    try:
        _wait_until(stop_new)
    except BaseException:
        go_on()
        raise
    return go_on


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise HostError("one of its processes cannot be stopped")
        time.sleep(_POLL_S)


def _is_still(pid: int) -> bool:
    """True when every thread of a process is stopped, or it is gone."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return all(stat_fields(f"/proc/{pid}/task/{task}/stat")[0] in _STOPPED for task in tasks)
    except OSError:
        return True
