"""Malformed messages on shell, control and stdin: no crash, no hang, the next request is answered.

A case is a hundred messages to one of four kernels. Some of them are signed with the right key, as
a front end gone wrong would send them: those reach deeper than what a stranger can send.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from tests.kernel.conftest import Kernel, until
from tests.kernel.test_real import RealKernel
from tests.soak.run import STATES

CASES, SAMPLE = 1000, 8
MESSAGES = 100
LEAK_KIB = 60_000
CHANNELS = ("shell", "control", "stdin")
HELLO = {"real": "echo hello", "sh": "echo hello"}
# A shutdown or an input() would be right to end or to stop it.
REQUESTS = [
    *("execute", "complete", "inspect", "history", "is_complete", "comm_info", "kernel_info"),
    *("debug", "usage", "interrupt", "create_subshell", "delete_subshell", "list_subshell"),
    *("made_up", "apply", "abort", "execute", "execute", "execute"),
]
TYPES = [*(f"{name}_request" for name in REQUESTS), "comm_open", "comm_msg", "comm_close"]
KEYS = [
    *("code", "cursor_pos", "silent", "store_history", "user_expressions", "stop_on_error"),
    *("allow_stdin", "comm_id", "target_name", "data", "hist_access_type", "n", "detail_level"),
    *("subshell_id", "value", "command", "arguments", "seq", "type", "restart"),
]
WHOLE = {
    "execute_request": {"code": "1", "silent": False, "user_expressions": {}},
    "complete_request": {"code": "%ba", "cursor_pos": 3},
    "inspect_request": {"code": "print", "cursor_pos": 5, "detail_level": 0},
    "is_complete_request": {"code": "if"},
    "comm_open": {"comm_id": "c", "target_name": "t", "data": {}},
}
VALUES = [
    *(
        None,
        True,
        False,
        0,
        -1,
        5,
        1 << 70,
        1e308,
        float("nan"),
        "",
        "x",
        "%bas",
        "\ud800",
        "☃" * 9,
    ),
    *([], {}, [[]], {"a": {"b": []}}, "1", "%%build\nfalse", "%use nowhere", "%nonsense", "\x00"),
]
FRAMES = [b"", b"{", b"[]", b"{}", b"null", b"5", b'"x"', b"\xff\xfe", b"[" * 5_000, b"{}" * 9]


class Target:
    """A kernel under fire: sockets of our own to it, and what it weighed after the first case."""

    def __init__(self, kind: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        folder = Path(self._folder.name)
        if kind == "real":
            self.kernel = RealKernel(folder, STATES / "home", "crun")
            self.kernel.run("%base busybox")
        else:
            self.kernel = Kernel(kind, folder)
        self.hello = HELLO.get(kind, "print('hello')")
        self.kernel.run(self.hello)
        self.session = self.kernel.client.session
        info = self.kernel.manager.get_connection_info()
        self._context = zmq.Context()
        self.sockets = {name: self._context.socket(zmq.DEALER) for name in CHANNELS}
        for name, socket in self.sockets.items():
            socket.connect(f"tcp://{info['ip']}:{info[f'{name}_port']}")
        self._weight: int | None = None
        self._seen: dict[bytes, list[bytes]] = {}

    def _resident_kib(self) -> int:
        lines = Path(f"/proc/{self.kernel.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def check(self) -> None:
        """All was read, and it works as if nothing had been."""
        for name in ("shell", "control"):
            self._wait_for_answer(name)
        self._drain()
        assert "hello" in self._say_hello()
        self._weight = self._weight or self._resident_kib()
        grown = self._resident_kib() - self._weight
        assert grown < LEAK_KIB, f"it grew by {grown} KiB"

    def _wait_for_answer(self, name: str) -> None:
        request = self.session.msg("kernel_info_request", {})
        self.session.send(self.sockets[name], request)

        def is_answer() -> bool:
            assert self.kernel.manager.is_alive(), "it died"
            if not self.sockets[name].poll(1000):
                return False
            _, message = self.session.recv(self.sockets[name], mode=0)
            return message["parent_header"].get("msg_id") == request["header"]["msg_id"]

        until(is_answer)

    def _drain(self) -> None:
        """Take what came for others; no message comes twice.

        But for results of ipykernel's: its subshells share one, and publish it twice now and then
        without us too.
        """
        client = self.kernel.client
        channels = (client.shell_channel, client.iopub_channel, client.stdin_channel)
        for socket in (*self.sockets.values(), *(channel.socket for channel in channels)):
            while socket.poll(0):
                frames = socket.recv_multipart()
                _, signature, header, *_ = frames[frames.index(b"<IDS|MSG>") :]
                if b"execute_result" in header:
                    continue
                assert signature not in self._seen, (frames, self._seen[signature])
                self._seen[signature] = frames

    def _say_hello(self) -> str:
        for _ in range(3):  # an interrupt or an abort that was sent may be as late as this
            text = self.kernel.text(self.hello)
            if "hello" in text:
                break
        return text

    def close(self) -> None:
        self._context.destroy(linger=0)
        self.kernel.close()
        self._folder.cleanup()


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    """Four kernels: a real one with a container, and one of each kind of inner kernel."""
    kinds = ("real", "ipykernel", "python", "sh")
    targets: dict[str, Target] = {}

    def case(number: int, chance: random.Random) -> None:
        kind = kinds[number % len(kinds)]
        target = targets[kind] = targets.get(kind) or Target(kind)
        for _ in range(MESSAGES):
            channel = chance.choice(CHANNELS)
            target.sockets[channel].send_multipart(malformed(target.session, chance))
        target.check()

    try:
        yield case
    finally:
        for target in targets.values():
            target.close()


def malformed(session, chance: random.Random) -> list[bytes]:
    """The frames of a message that is wrong somewhere."""
    msg_type = chance.choice(TYPES)
    message = session.msg(msg_type, {**WHOLE.get(msg_type, {}), **odd(chance)})
    dicts = [message[key] for key in ("header", "parent_header", "metadata", "content")]
    if chance.random() < 0.2:
        place = chance.randrange(4)
        dicts[place] = {**dicts[place], **odd(chance)}
    written = [dump(one) for one in dicts]
    if chance.random() < 0.2:
        written[chance.randrange(4)] = chance.choice(FRAMES)
    buffers = [chance.randbytes(chance.randrange(50)) for _ in range(chance.randrange(3))]
    frames = [b"<IDS|MSG>", session.sign(written), *written, *buffers]
    if chance.random() < 0.5:
        for _ in range(chance.randint(1, 3)):
            frames = broken(frames, chance)
    return frames or [b""]


def odd(chance: random.Random) -> dict[str, object]:
    """Some keys with values that may be of the wrong type."""
    return {chance.choice(KEYS): chance.choice(VALUES) for _ in range(chance.randrange(5))}


def dump(value: object) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")


def broken(frames: list[bytes], chance: random.Random) -> list[bytes]:
    """One frame changed, gone, doubled, or put in another's place."""
    if not frames:
        return frames
    place = chance.randrange(len(frames))
    frame = frames[place]
    choices = [
        [*frames[:place], *frames[place + 1 :]],
        [*frames[:place], frame, *frames[place:]],
        [*frames[:place], frame[: chance.randrange(len(frame) + 1)], *frames[place + 1 :]],
        [*frames[:place], chance.choice(FRAMES), *frames[place + 1 :]],
        [*frames[:place], chance.randbytes(chance.randrange(1, 100)), *frames[place + 1 :]],
        chance.sample(frames, len(frames)),
        frames * 10,
    ]
    return chance.choice(choices)
