"""What the outer kernel needs of an inner kernel, whatever speaks to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from ..record import record
from . import foreign
from .front import Front, Request
from .loop import Loop
from .process import Process
from .wire import Dict, Message

if TYPE_CHECKING:
    from ..runtime.container import Container
    from .launch import Launched

READY_TIMEOUT_S = 60.0


@record(frozen=False)
class Task:
    """One run cell on its way.

    ``announced`` says that busy and execute_input have been published already, while the image was
    made ready, so that the inner kernel's own are left out; ``is_shown``, that somebody did.
    """

    request: Request
    count: int
    announced: bool = False
    is_shown: bool = False

    @property
    def silent(self) -> bool:
        """Whether the cell is neither shown nor counted."""
        return bool(self.request.content.get("silent"))

    @property
    def counts(self) -> bool:
        """Whether the cell takes a number."""
        return not self.silent and bool(self.request.content.get("store_history", True))


def hidden_task(front: Front, code: str) -> Task:
    """A cell that nobody sent: its reply goes nowhere, and nothing of it is shown."""
    content = {
        "code": code,
        "silent": True,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    frames = front.session.frames("execute_request", content)
    return Task(Request("shell", Message.parse(frames, front.session.signer)), 0)


class Listener(Protocol):
    """Who is told what happens to an inner kernel."""

    def on_ready(self, inner: Inner) -> None:
        """It answers."""

    def on_failed(self, inner: Inner, task: Task) -> None:
        """A cell failed; its reply has not been passed on yet."""

    def on_error(self, inner: Inner, task: Task, content: Dict) -> None:
        """A cell's error is shown; more may be said of it before the cell is idle."""

    def on_done(self, inner: Inner, task: Task, reply: Dict) -> None:
        """A cell's reply and idle have been passed on."""

    def on_death(self, inner: Inner) -> None:
        """Its process ended without being asked."""


@record(frozen=False)
class Surroundings:
    """What every inner kernel is given."""

    front: Front
    loop: Loop
    listener: Listener


class Inner(ABC):
    """A running inner kernel. One cell at a time; other requests whenever they come."""

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        self.live = launched.live
        self.choice = launched.choice
        self.started_on = launched.live.chain_id
        self.mailbox = launched.mailbox
        self.front, self.loop, self.listener = around.front, around.loop, around.listener
        self.info: Dict = {}
        self.is_ready = False
        self.is_closed = False
        self.gave_up = False
        self.is_guess = False  # nobody has asked for it, yet
        self.has_run = False
        self.task: Task | None = None
        self.said = ""
        """The end of what the cell wrote, as far as that can be known."""
        self.process = Process(launched.container, self.loop, self._on_output, self._ended)
        self._patience = self.loop.call_later(READY_TIMEOUT_S, self._give_up)

    @property
    def container(self) -> Container:
        """The container it runs in."""
        return self.process.container

    @property
    def is_busy(self) -> bool:
        """Whether it starts, runs a cell, or has not answered everything yet."""
        return not self.is_ready or self.task is not None or self._owes_answers

    @property
    @abstractmethod
    def _owes_answers(self) -> bool:
        """Whether a request that runs no cell of the queue is being worked on."""

    @property
    def is_ipython(self) -> bool:
        """Whether it has IPython's magics."""
        return self.info.get("implementation") == "ipython"

    @property
    def has_subshells(self) -> bool:
        """Whether it runs more than one request at a time, where asked to."""
        features = self.info.get("supported_features")
        return isinstance(features, list) and "kernel subshells" in features

    @property
    def magics(self) -> frozenset[str]:
        """The magics it knows; where there are any, what is not ours is its own to judge."""
        return foreign.IPYTHON if self.is_ipython else frozenset()

    @abstractmethod
    def execute(self, task: Task) -> None:
        """Run a cell. ``on_done`` or ``on_death`` follows."""

    @abstractmethod
    def forward(self, request: Request) -> bool:
        """Pass on any other request; False if nobody there would answer it."""

    @abstractmethod
    def interrupt(self) -> None:
        """Stop the running cell."""

    @abstractmethod
    def drain(self) -> None:
        """Pass on what has arrived but was not read yet."""

    @abstractmethod
    def _on_output(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def _disconnect(self) -> None: ...

    def last_words(self) -> list[str]:
        """What it wrote to its standard error before it ended, unless a cell shows it."""
        return self.process.last_words()

    def ask_to_end(self) -> None:
        """Tell it to end by itself, where it can be told."""
        return

    def close(self) -> None:
        """Stop listening to it. Its container is then ended by the worker (``process.end``)."""
        if not self.is_closed:
            self.is_closed = True
            self._patience.cancel()
            self.process.detach()
            self._disconnect()
            self.mailbox.close()

    def _became_ready(self, info: Dict) -> None:
        self.info = info
        self.is_ready = True
        self._patience.cancel()
        self.listener.on_ready(self)

    def _finished(self, task: Task, reply: Dict) -> None:
        self.task = None
        self.has_run = True
        self.listener.on_done(self, task, reply)

    def _give_up(self) -> None:
        self.gave_up = True
        self.container.kill()

    def _ended(self) -> None:
        if not self.is_closed:
            self.drain()
            self.listener.on_death(self)


def number(value: Any) -> int | None:
    """``value`` if it is a sensible execution count."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return value if is_int and 0 <= value < 1 << 31 else None
