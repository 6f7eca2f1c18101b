"""The inner kernel of an image that has only ``sh``: see ``agent/shell.sh`` for its side."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .agent_inner import AgentInner
from .front import Request
from .inner import Surroundings, Task
from .wire import Dict

if TYPE_CHECKING:
    from .launch import Launched

_Answer = Callable[[list[str]], Dict]
_ANSWER_LIMIT = 4 << 20
_MOST_MATCHES = 1000
_AGAIN_S = 0.05
_WORDS = """
    alias bg break case cd command continue do done elif else esac eval exec exit export false fg fi
    for getopts hash if in jobs kill local printf pwd read readonly return set shift test then times
    trap true type ulimit umask unalias unset until wait while
""".split()  # noqa: SIM905 (readable as it stands)
_WORD = re.compile(r"(?:\\.|[^\s\\;|&<>()`\"'=])*$")
_HERE = re.compile(r"<<-?\s*(['\"\\]?)([A-Za-z_]\w*)")
_NOT_OVER = b'\nUse "exit" to leave shell.\n'
_CUT_SHORT = re.compile(r"end of file|unterminated|EOF|here-document", re.IGNORECASE)


class ShellInner(AgentInner):
    """The agent in an image that has only ``sh``.

    Its prompt says that a cell is over: a mark nobody can guess, the number of
    the cell, the exit status.
    """

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        self._mark = os.urandom(8).hex().encode()
        self._number = 0
        self._cell_number = 0
        self._was_interrupted = self._may_come_late = False
        self._held_back: bytes | None = None
        self._held = {"stdout": b"", "stderr": b""}
        self._events = b""
        self._asked: dict[int, tuple[Request, _Answer]] = {}
        super().__init__(launched, around)
        self.loop.add_reader(self.agent.events, self._read)
        prompt = f"{self._mark.decode()}$__ck_id:$?:"
        start = f". '{self.agent.file}'; __ck_id=0; __ck_events='{self.agent.events_inside}'"
        self._send(f"{start}; __ck_prompt='{prompt}'; PS1=$__ck_prompt\n".encode())

    @property
    def _owes_answers(self) -> bool:
        return bool(self._asked)

    def _send_cell(self, task: Task) -> None:
        self._number += 1
        self._cell_number = self._number
        self._was_interrupted = False
        code = escaped(task.request.content["code"])
        line = b"__ck_id=%d; __ck_run '%s'; __ck_over\n" % (self._number, code)
        if self._may_come_late:
            # The signal meant for the cell before may throw away the line that the shell reads
            # next, or end what that runs: this one until there is a prompt of its own.
            self._may_come_late = False
            self._held_back = line
            self._ask_for_prompt()
        else:
            self._send(line)

    # What it writes

    def _on_output(self, name: str, data: bytes) -> None:
        # Most shells prompt on standard error, busybox without a terminal on standard output.
        self._held[name] += data
        if _NOT_OVER in self._held[name]:
            self._held[name] = self._held[name].replace(_NOT_OVER, b"")
            self._send(b":\n")  # any command, so that it counts its 50 times anew
        while self._take_prompt(name):
            continue
        held = self._held[name]
        # A mark may be cut in two; its first half waits for the second.
        start = held.find(self._mark)
        start = len(held) - _overlap(held, self._mark) if start < 0 else start
        self._held[name] = held[start:]
        self._on_text(name, held[:start])

    def _take_prompt(self, name: str) -> bool:
        """Act on the first whole prompt; False if there is none."""
        before, mark, after = self._held[name].partition(self._mark)
        parts = after.split(b":", 2)
        if not mark or len(parts) < 3:
            return False
        self._held[name] = parts[2]
        self._on_text(name, before)
        self._on_prompt(parts[0], parts[1])
        return True

    def _on_text(self, name: str, text: bytes) -> None:
        if text and self.is_ready:
            super()._on_output(name, text)

    def _on_prompt(self, number: bytes, status: bytes) -> None:
        if not self.is_ready:
            self.process.drain("stderr")  # what an interactive shell says of having no terminal
            self._held["stderr"] = b""
            self._became_ready(_SHELL_INFO)
        elif self._held_back is not None:
            self._let_go_on(number)
        elif number == b"%d" % self._cell_number and self._runs:
            self._end_cell(None if status == b"0" else _failure(status.decode("ascii", "replace")))
        elif self._was_interrupted and self._runs:
            self._make_sure()

    def _let_go_on(self, number: bytes) -> None:
        """Send the cell that was held back, once the line before it was read."""
        if number != b"%d." % self._cell_number:  # thrown away, or not read yet
            self._ask_for_prompt()
            return
        line, self._held_back = self._held_back, None
        if self._was_interrupted:
            self._end_cell(_failure("130"))
        elif line is not None:
            self._send(line)

    def _ask_for_prompt(self) -> None:
        """One before the cell, which no interrupt of another can end."""
        self._send(b"__ck_id=%d.\n" % self._cell_number)

    def interrupt(self) -> None:
        """As Ctrl-C in a terminal."""
        if self._runs:
            self._was_interrupted = self._may_come_late = True
        super().interrupt()

    def _make_sure(self) -> None:
        """An interrupt came so early that the shell was still reading: it prompts at once, and has
        thrown the cell's line away, or not seen it yet. This prompt is the cell's last one.
        """
        self._was_interrupted = False
        self._send(b"__ck_id=%d; (exit 130)\n" % self._cell_number)
        self._interrupt_again(_AGAIN_S)

    # Look-ups

    def forward(self, request: Request) -> bool:
        """Look-ups; while a cell runs nobody there can answer them."""
        code = request.content.get("code")
        if self.task is not None or not isinstance(code, str):
            return super().forward(request)
        if request.msg_type == "complete_request":
            self._complete(request, code)
        elif request.msg_type == "inspect_request":
            self._inspect(request, code)
        elif request.msg_type == "is_complete_request":
            self._is_complete(request, code)
        else:
            return super().forward(request)
        return True

    def _ask(self, request: Request, function: str, argument: str, answer: _Answer) -> None:
        self.front.status(request, "busy")
        self._number += 1
        self._asked[self._number] = request, answer
        given = (self._number, function.encode(), escaped(argument))
        self._send(b"__ck_answer %d %s '%s'\n" % given)

    def _complete(self, request: Request, code: str) -> None:
        cursor = _cursor(request, code)
        line = code[:cursor].rpartition("\n")[2]
        variable = re.search(r"\$\{?(\w*)$", line)
        if variable:
            word, function = variable[1], "__ck_variables"
        else:
            word = _WORD.search(line)[0]  # type: ignore[index]  # it matches the empty string
            function = "__ck_files"
            if "/" not in word and _begins_command(line[: len(line) - len(word)]):
                function = "__ck_commands"

        def answer(lines: list[str]) -> Dict:
            found = _matches(function, word, lines)
            return {
                "status": "ok",
                "matches": found[:_MOST_MATCHES],
                "cursor_start": cursor - len(word),
                "cursor_end": cursor,
                "metadata": {},
            }

        self._ask(request, function, re.sub(r"\\(.)", r"\1", word), answer)

    def _inspect(self, request: Request, code: str) -> None:
        cursor = _cursor(request, code)
        end = cursor + len(re.match(r"[\w.-]*", code[cursor:])[0])  # type: ignore[index]
        word = re.search(r"[\w.-]*$", code[:end])[0]  # type: ignore[index]

        def answer(lines: list[str]) -> Dict:
            text = "\n".join(line for line in lines if line and "not found" not in line)
            data = {"text/plain": text} if text else {}
            return {"status": "ok", "found": bool(text), "data": data, "metadata": {}}

        self._ask(request, "__ck_about", word or "-", answer)

    def _is_complete(self, request: Request, code: str) -> None:
        def answer(lines: list[str]) -> Dict:
            said = "\n".join(lines).strip()
            if _CUT_SHORT.search(said) or code.rstrip(" ").endswith("\\") or _has_open_here(code):
                return {"status": "incomplete", "indent": ""}
            return {"status": "invalid" if said else "complete"}

        self._ask(request, "__ck_syntax", code, answer)

    def _read(self) -> None:
        try:
            self._events += os.read(self.agent.events, 1 << 16)
        except BlockingIOError:
            return
        while found := re.search(rb"^(\d+)\.\n", self._events, re.MULTILINE):
            text = self._events[: found.start()]
            self._events = self._events[found.end() :]
            asked = self._asked.pop(int(found[1]), None)
            if asked is not None:
                self._answer(asked[0], asked[1](text.decode("utf-8", "replace").split("\n")))
        if len(self._events) > _ANSWER_LIMIT:
            self._events = b""

    def _disconnect(self) -> None:
        for request, answer in self._asked.values():
            self._answer(request, answer([]))
        self._asked.clear()
        self.loop.remove_reader(self.agent.events)
        super()._disconnect()


def _cursor(request: Request, code: str) -> int:
    cursor = request.content.get("cursor_pos")
    return cursor if isinstance(cursor, int) and 0 <= cursor <= len(code) else len(code)


def _begins_command(before: str) -> bool:
    """Whether a command's name stands behind this part of a line."""
    words = r"(?:^|[;&|({`!]|\b(?:if|then|elif|else|while|until|do|exec|command|time))\s*$"
    return bool(re.search(words, before))


def _matches(function: str, word: str, lines: list[str]) -> list[str]:
    """What an answer says may stand in place of ``word``."""
    if function == "__ck_variables":
        names = {found[0] for line in lines if (found := re.match(r"[A-Za-z_]\w*(?==)", line))}
        return sorted(n for n in names if n.startswith(word) and not n.startswith("__ck_"))
    if function == "__ck_files":
        return [re.sub(r"([\s\\;|&<>()`\"'$*?\[\]#])", r"\\\1", line) for line in lines if line]
    names = {line.removeprefix("declare -f ") for line in lines} | set(_WORDS)
    plain = (n for n in names if re.fullmatch(r"[^\s=]+", n) and not n.startswith("__ck_"))
    return sorted(name for name in plain if name.startswith(word))


def _has_open_here(code: str) -> bool:
    """Whether a here-document's last line is still to come: shells take its absence silently."""
    for found in _HERE.finditer(code):
        below = code[found.end() :].split("\n")[1:]
        if found[2] not in (line.strip() for line in below):
            return True
    return False


def _failure(status: str) -> Dict:
    if status == "130":
        return {
            "ename": "KeyboardInterrupt",
            "evalue": "",
            "traceback": ["\x1b[31mKeyboardInterrupt\x1b[0m"],
        }
    message = f"the cell ended with exit status {status}"
    shown = f"\x1b[31mExitStatus\x1b[0m: {message}"
    return {"ename": "ExitStatus", "evalue": message, "traceback": [shown]}


def escaped(text: str) -> bytes:
    """Text as an argument of ``printf %b`` between single quotes."""
    safe = b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./=:,+$"(){}[];|&<>'
    data = text.replace("\0", "").encode("utf-8", "replace")
    return b"".join(b"%c" % byte if byte in safe else b"\\0%03o" % byte for byte in data)


def _overlap(data: bytes, mark: bytes) -> int:
    """How many bytes at the end of ``data`` may begin ``mark``."""
    sizes = range(min(len(data), len(mark) - 1), 0, -1)
    return next((size for size in sizes if mark.startswith(data[-size:])), 0)


_SHELL_INFO: Dict = {
    "implementation": "container_kernel.agent",
    "banner": "sh",
    "language_info": {
        "name": "bash",
        "version": "",
        "mimetype": "text/x-sh",
        "codemirror_mode": "shell",
        "pygments_lexer": "bash",
        "nbconvert_exporter": "script",
        "file_extension": ".sh",
    },
}
