"""Report: the two ways a command answers, for people and for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from ..display.log import plain_lines
from ..errors import ContainerKernelError

if TYPE_CHECKING:
    from ..build.events import OnEvent


class Report:
    """Writes results to stdout and everything else to stderr."""

    def __init__(self, is_json: bool = False) -> None:
        self.is_json = is_json

    def result(self, data: object, text: str) -> None:
        """The answer of the command: ``data`` for programs or ``text`` for people."""
        if self.is_json:
            print(json.dumps(data, ensure_ascii=False))
        elif text:
            print(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Something about the work, not its result."""
        print(text, file=sys.stderr, flush=True)

    def log(self, text: str) -> None:
        """Output of something that works, as it comes."""
        _to_stderr(plain_lines(text))

    def progress(self, text: str) -> None:
        """A line that may be drawn over itself."""
        _to_stderr(text)

    def error(self, error: ContainerKernelError) -> None:
        """What went wrong and what to do."""
        lines = [f"error: {error.message}", *getattr(error, "__notes__", ())]
        if error.hint:
            lines.append(f"hint: {error.hint}")
        self.note("\n".join(lines))
        if self.is_json:
            said = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
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

        return TerminalBoard(_to_stderr, self.width).on_event


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
