"""The Python agent's real file in a real Python, spoken to as the host does."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from importlib import resources
from types import SimpleNamespace

import pytest

from container_kernel.kernel.launch import halves

SOURCE = resources.files("container_kernel.agent").joinpath("python.py").read_bytes()
TIMEOUT_S = 30
PYTHONS = [sys.executable, *filter(None, os.environ.get("AGENT_PYTHONS", "").split(":"))]
"""``AGENT_PYTHONS=/a/python:/b/python pytest tests/agent`` tries others too."""


class Session:
    """An agent's process, and the host's ends of its pipes."""

    def __init__(self, folder, python, env=None):
        self.python = python
        self.version = _version(python)
        head, later = halves(SOURCE)
        files = {"agent.py": head, "later.py": later}
        for name, data in files.items():
            (folder / name).write_bytes(data)
        for name in ("commands", "events"):
            os.mkfifo(folder / name)
        self._commands = os.open(folder / "commands", os.O_RDWR)
        self._events = os.open(folder / "events", os.O_RDWR)
        paths = [str(folder / name) for name in ("agent.py", "commands", "events", "later.py")]
        self.process = subprocess.Popen(
            [python, "-u", *paths],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._pipes = {"stdout": self.process.stdout.fileno()}
        self._pipes["stderr"] = self.process.stderr.fileno()
        self._buffer = b""
        self._count = 0
        self.log = []
        self.answers = []
        self.info = self._until("ready")["info"]

    def tell(self, op, **fields):
        os.write(self._commands, json.dumps({"op": op, **fields}).encode() + b"\n")

    def start(self, code, **options):
        """Send a cell; its id."""
        self._count += 1
        self.log = []
        cell = {"silent": False, "store_history": True, "user_expressions": {}} | options
        allow = bool(self.answers)
        cell_id = f"cell-{self._count}"
        self.tell("execute", id=cell_id, code=code, count=self._count, allow_stdin=allow, **cell)
        return cell_id

    def finish(self, cell_id):
        """Wait for a cell's end; what it did."""
        reply = self._until("reply", cell_id)["content"]
        self._drain()
        return Outcome(reply, self.log)

    def run(self, code, **options):
        return self.finish(self.start(code, **options))

    def ask(self, op, code="", cursor=None, **more):
        """A look-up's reply."""
        cursor = len(code) if cursor is None else cursor
        self.tell(op, id="look-up", code=code, cursor_pos=cursor, **more)
        return self._until("reply", "look-up")["content"]

    def matches(self, code):
        """What completion makes of ``code`` with the cursor at its end: the whole texts."""
        reply = self.ask("complete", code)
        return [code[: reply["cursor_start"]] + match for match in reply["matches"]]

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for_text(self, text):
        """Wait until this is printed."""
        self._wait(lambda: text in self.text("stdout"), text)

    def wait_for_event(self, kind):
        self._wait(lambda: any(name == kind for name, _ in self.log), kind)

    def text(self, name):
        return "".join(data for kind, data in self.log if kind == name)

    def _wait(self, is_there, what):
        end = time.monotonic() + TIMEOUT_S
        while not is_there():
            assert time.monotonic() < end, f"{what} did not come; {self.log}"
            self._take(0.05)

    def _until(self, op, id_=None):
        end = time.monotonic() + TIMEOUT_S
        while True:
            for event in self._take(1):
                if event["op"] == op and id_ in (None, event.get("id")):
                    return event
            assert time.monotonic() < end, f"no {op}; {self.log}"
            assert self.process.poll() is None, f"it ended; {self.log}"

    def _take(self, timeout_s):
        """The events that are there, each once; what was printed goes to the log in order."""
        select.select([self._events, *self._pipes.values()], [], [], timeout_s)
        self._drain()
        if select.select([self._events], [], [], 0)[0]:
            self._buffer += os.read(self._events, 1 << 18)
        *lines, self._buffer = self._buffer.split(b"\n")
        events = [json.loads(line) for line in lines]
        for event in events:
            self._drain()
            if event["op"] in ("publish", "stream"):
                self.log.append((event.get("type", "old " + event.get("name", "")), event))
            if event.get("sync"):
                self.tell("ack")
            if event["op"] == "input_request":
                self.log.append(("input_request", event))
                if self.answers:
                    self.tell("input_reply", value=self.answers.pop(0))
        return events

    def _drain(self):
        for name, fd in list(self._pipes.items()):
            while select.select([fd], [], [], 0)[0]:
                data = os.read(fd, 1 << 16).decode()
                if not data:
                    del self._pipes[name]
                    break
                if self.log and self.log[-1][0] == name:
                    data = self.log.pop()[1] + data
                self.log.append((name, data))

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        os.close(self._commands)
        os.close(self._events)


class Outcome(SimpleNamespace):
    """A cell's reply and what came out of it, in order."""

    def __init__(self, reply, log):
        super().__init__(reply=reply, log=log, status=reply.get("status"))

    @property
    def out(self):
        return "".join(data for kind, data in self.log if kind == "stdout")

    @property
    def err(self):
        return "".join(data for kind, data in self.log if kind == "stderr")

    def shown(self, mime="text/plain"):
        """What was displayed and is of this type."""
        data = [event.get("content", {}).get("data", {}) for _, event in self.events]
        return [one[mime] for one in data if mime in one]

    @property
    def events(self):
        return [item for item in self.log if item[0] not in ("stdout", "stderr")]

    @property
    def traceback(self):
        """Without colours."""
        import re

        return re.sub(r"\x1b\[\d+m", "", "\n".join(self.reply["traceback"]))


def _name(python):
    return ".".join(map(str, _version(python)))


def _version(python):
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return tuple(map(int, done.stdout.split()))


@pytest.fixture(scope="module", params=PYTHONS, ids=lambda path: "python" + _name(path))
def agent(request, tmp_path_factory):
    """A session that the tests of a module share."""
    session = Session(tmp_path_factory.mktemp("agent"), request.param)
    yield session
    session.close()


@pytest.fixture(params=PYTHONS, ids=lambda path: "python" + _name(path))
def fresh(request, tmp_path):
    """Start a session for one test alone."""
    sessions = []

    def start(**env):
        sessions.append(Session(tmp_path, request.param, env))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()
