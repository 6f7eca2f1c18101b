"""Report: the two ways a command answers, for people and for programs."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..display.log import plain_lines
from ..errors import ContainerKernelError, StoreError
from .streams import to_stderr, to_stdout

if TYPE_CHECKING:
    from ..build.events import OnEvent


class Report:
    """Writes results to stdout and everything else to stderr."""

    def __init__(self, is_json: bool = False) -> None:
        self.is_json = is_json

    def result(self, data: object, text: str) -> None:
        """The answer of the command: ``data`` for programs or ``text`` for people."""
        if self.is_json:
            text = json.dumps(data, ensure_ascii=False)
        to_stdout(f"{text}\n" if text else "")

    def note(self, text: str) -> None:
        """Something about the work, not its result."""
        to_stderr(f"{text}\n")

    def log(self, text: str) -> None:
        """Output of something that works, as it comes."""
        to_stderr(plain_lines(text))

    def progress(self, text: str) -> None:
        """A line that may be drawn over itself."""
        to_stderr(text)

    def error(self, error: ContainerKernelError) -> None:
        """What went wrong and what to do."""
        lines = [f"error: {error.message}", *getattr(error, "__notes__", ())]
        if error.hint:
            lines.append(f"hint: {error.hint}")
        self.note("\n".join(lines))
        if self.is_json:
            said = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
            with suppress(StoreError, BrokenPipeError):  # the first error is the one to tell
                self.result({"status": "error", "error": said}, "")

    @property
    def width(self) -> int | None:
        """The columns of the terminal that stderr is, or None."""
        if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return None
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80

    def on_event(self) -> OnEvent:
        """A listener that shows a build's progress on stderr."""
        from ..display.terminal import TerminalBoard

        return TerminalBoard(to_stderr, self.width).on_event
