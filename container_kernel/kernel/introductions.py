"""Introductions: what the kernel is, told at once, or as soon as the inner kernel has said it.

Front ends ask when they connect and never again: the language's version, subshells and the debugger
are what the first reply says they are. So where an inner kernel is being started already, its own
word is waited for; where none is, front ends must not wait for a cell that nobody has run.
"""

from __future__ import annotations

from collections.abc import Callable

from .front import Request
from .loop import Loop


class Introductions:
    """Calls ``answer`` with each kernel_info_request when it may be answered."""

    def __init__(self, loop: Loop, answer: Callable[[Request], object]) -> None:
        self._loop = loop
        self._answer = answer
        self._is_waiting = False
        self._asked: list[Request] = []

    def ask(self, request: Request) -> None:
        """Answer now, or when the wait ends."""
        if self._is_waiting:
            self._asked.append(request)
        else:
            self._answer(request)

    def wait(self, at_most_s: float) -> None:
        """Answer nobody before ``end_wait`` is called, or that time is over."""
        self._is_waiting = True
        self._loop.call_later(at_most_s, self.end_wait)

    def end_wait(self) -> None:
        """Answer all who asked; harmless when nobody waits."""
        self._is_waiting = False
        asked, self._asked = self._asked, []
        for request in asked:
            self._answer(request)
