"""A client that keeps every message it gets, and tells an exchange as plain values."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import zmq
from jupyter_client.session import Session

PATIENCE_S = 20
# What no two kernels have in common, whatever else they do alike.
_PRIVATE = [
    (
        re.compile(r"(?<=[\s\"'])~?/\S*/(site|dist)-packages/|^~?/\S*/(site|dist)-packages/"),
        "PACKAGES/",
    ),
    (re.compile(r"(\x1b\[[\d;]+m)~?/\S*/(site|dist)-packages/"), r"\1PACKAGES/"),
    (re.compile(r"/tmp/ipykernel_\d+/\d+"), "CELL-FILE"),  # named by the process and its cell
    (re.compile(r"0x[0-9a-f]{6,}"), "ADDRESS"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)"), "DATE"),
    (re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"\bpid \d+|\bsession \d+"), "NUMBER"),
]


def normal(value, folder=None):
    """``value`` without what differs between any two runs: times, ids, addresses, the folder."""
    if isinstance(value, dict):
        return {normal(key, folder): normal(one, folder) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [normal(one, folder) for one in value]
    if isinstance(value, bytes):
        return normal(value.decode("latin-1"), folder)
    if not isinstance(value, str):
        return value if isinstance(value, (int, float, bool, type(None))) else str(value)
    for pattern, word in _PRIVATE:
        value = pattern.sub(word, value)
    # The notebook's folder is /work inside.
    return value if folder is None else re.sub(f"{folder}|/work(?![\\w-])", "FOLDER", value)


class Client:
    """One front end of one kernel."""

    def __init__(self, manager, folder):
        self.manager, self.folder = manager, Path(folder)
        self.inbox = []
        self.connect()

    def connect(self):
        # A session of its own: it is also the name by which the kernel knows where to reply.
        self.client = self.manager.client(session=Session(key=self.manager.session.key))
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.session = self.client.session
        self._poller = zmq.Poller()
        for name in ("shell", "control", "stdin", "iopub"):
            self._poller.register(self.socket(name), zmq.POLLIN)

    def socket(self, channel):
        return getattr(self.client, f"{channel}_channel").socket

    def send(self, msg_type, content, *, channel="shell", header=None, metadata=None, buffers=None):
        """Send a request; its id."""
        message = self.session.msg(msg_type, content, metadata=metadata)
        message["header"].update(header or {})
        self.session.send(self.socket(channel), message, buffers=buffers)
        return message["header"]["msg_id"]

    def execute(self, code, *, header=None, metadata=None, **options):
        """Send a cell; its id."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": True, **options}
        return self.send("execute_request", content, header=header, metadata=metadata)

    # What came

    def read(self, timeout_s=0.0):
        """Take in what has arrived, or arrives in time."""
        for socket, _ in self._poller.poll(timeout_s * 1000):
            channel = next(n for n in ("shell", "control", "stdin", "iopub")
                           if self.socket(n) is socket)  # fmt: skip
            while socket.poll(0):
                topic, message = self.session.recv(socket, mode=0)
                self.inbox.append(message | {"channel": channel, "topic": topic})

    def wait(self, found: Callable[[dict], object], timeout_s=PATIENCE_S):
        """The first message that ``found`` accepts, come already or still to come."""
        end, looked = time.monotonic() + timeout_s, 0
        while True:
            for message in self.inbox[looked:]:
                looked += 1
                if found(message):
                    return message
            if time.monotonic() > end:
                raise TimeoutError([m["msg_type"] for m in self.inbox[-20:]])
            self.read(0.05)

    def of(self, msg_id):
        """What came for a request."""
        return [m for m in self.inbox if m["parent_header"].get("msg_id") == msg_id]

    def reply(self, msg_id, timeout_s=PATIENCE_S):
        return self.wait(lambda m: m["channel"] in ("shell", "control") and is_of(m, msg_id),
                         timeout_s)  # fmt: skip

    def idle(self, msg_id, timeout_s=PATIENCE_S):
        return self.wait(lambda m: is_of(m, msg_id) and state(m) == "idle", timeout_s)

    def text(self, msg_id, text, timeout_s=PATIENCE_S):
        """Wait until what the request printed holds ``text``."""
        return self.wait(lambda _: text in self.printed(msg_id), timeout_s)

    def printed(self, msg_id):
        return "".join(m["content"]["text"] for m in self.of(msg_id) if m["msg_type"] == "stream")

    # Whole exchanges, as plain values

    def ask(self, msg_type, content, **options):
        """Send a request and wait for its end; everything that came."""
        return self.told(self.send(msg_type, content, **options))

    def run(self, code, *, late=None, **options):
        """Run a cell; everything that came, ``late`` being printed by its end or after it."""
        msg_id = self.execute(code, **options)
        self.idle(msg_id)
        if late:
            self.text(msg_id, late)
        return self.told(msg_id)

    def told(self, msg_id, *, has_reply=True):
        if has_reply:
            self.reply(msg_id)
        self.idle(msg_id)
        found = self.of(msg_id)
        replies = [self._plain(m) for m in found if m["channel"] != "iopub"]
        outputs = _merged([self._plain(m) for m in found if m["channel"] == "iopub"])
        return {"replies": replies, "outputs": outputs}

    def _plain(self, message):
        header = message["header"]
        return {
            "type": message["msg_type"],
            "content": normal(message["content"], self.folder),
            # What ipykernel says for ipyparallel is no client's concern.
            "metadata": {
                key: normal(value, self.folder)
                for key, value in message["metadata"].items()
                # Where a cell ran is told on purpose, beside what ipykernel says.
                if key not in ("engine", "dependencies_met", "container_kernel")
            },
            "buffers": [normal(bytes(one)) for one in message["buffers"]],
            # The name of the account is the machine's, or the image's.
            "header": [*sorted(header), header["version"]],
            "parent": sorted(message["parent_header"]),
            "topic": normal(message["topic"]) if message["channel"] == "iopub" else [],
        }

    def close(self):
        self.client.stop_channels()


def is_of(message, msg_id):
    return message["parent_header"].get("msg_id") == msg_id


def state(message):
    return message["msg_type"] == "status" and message["content"]["execution_state"]


def _merged(messages):
    """Texts of one stream that follow each other as one: where they are cut is a matter of time."""
    found = []
    for message in messages:
        last = found[-1] if found else {"type": ""}
        if message["type"] == last["type"] == "stream":
            if message["content"]["name"] == last["content"]["name"]:
                last["content"]["text"] += message["content"]["text"]
                continue
        found.append(message)
    return found
