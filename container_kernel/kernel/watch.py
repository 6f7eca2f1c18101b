"""Watch: the limits of the cell that runs: which it has met, and the time it may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .loop import Loop, Timer
from .publisher import Publisher
from .wire import Dict

if TYPE_CHECKING:
    from .front import Front
    from .inner import Inner, Task

_GRACE_S = 2.0


class Watch:
    """One cell at a time; ``interrupt`` stops the one that runs."""

    def __init__(self, front: Front, loop: Loop, interrupt: Callable[[], object]) -> None:
        self._front = front
        self._loop = loop
        self._interrupt = interrupt
        self._timer: Timer | None = None

    def begin(self, inner: Inner, task: Task) -> None:
        """``task`` is about to be passed on to ``inner``: what is met from now on is its doing."""
        inner.container.pressure.begin()
        inner.said = ""
        timeout_s = inner.container.limits.timeout_s
        if timeout_s is not None and not task.silent:
            self._timer = self._loop.call_later(
                timeout_s, lambda: self._is_late(inner, task, timeout_s)
            )

    def failed(self, inner: Inner, task: Task, content: Dict) -> None:
        """The cell failed: say which limits it has met, if any. It is not idle before that."""
        said = f"{inner.said} {content.get('ename')}: {content.get('evalue')}"
        hits = inner.container.pressure.hits(said)
        if hits:
            from .limiting import note

            self._say(task, note(hits))

    def end(self) -> None:
        """No cell runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self, inner: Inner, task: Task, timeout_s: float) -> None:
        if inner.task is not task:
            return
        self._say(
            task,
            f"stopped after {timeout_s:g} s, the limit of a cell's time: "
            f"give it more with %limits --timeout {2 * timeout_s:g}s\n",
        )
        self._interrupt()
        self._timer = self._loop.call_later(_GRACE_S, lambda: self._kill(inner, task))

    def _kill(self, inner: Inner, task: Task) -> None:
        if inner.task is task and not inner.is_closed:
            inner.container.kill()

    def _say(self, task: Task, text: str) -> None:
        Publisher(self._front, task.request).stream("stderr", text)
