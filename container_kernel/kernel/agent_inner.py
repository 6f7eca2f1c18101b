"""Inner kernels that are our agents: they run code, all Jupyter is spoken here.

An agent's output comes through the container's two pipes, so that its child processes' is in
order with its own; what is to be told beside it comes as lines through a FIFO. Either may hold
anything: the container is not trusted.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from .front import Request
from .inner import Inner, Surroundings, Task
from .publisher import Publisher
from .recollection import Recollection
from .stream import Stream
from .wire import Dict

if TYPE_CHECKING:
    from .launch import Launched

_RETRY_S = 0.002
_TAIL = 2000


class AgentInner(Inner):
    """What the two agents have in common: pipes, streams, and one cell at a time."""

    def __init__(self, launched: Launched, around: Surroundings) -> None:
        assert launched.agent is not None
        self.agent = launched.agent
        self._unsent = b""
        self._last: Publisher | None = None
        self._ending: Task | None = None
        self._recollection = Recollection()
        self._streams = {
            name: Stream(around.loop, lambda text, name=name: self._publish_text(name, text))  # type: ignore[misc]
            for name in ("stdout", "stderr")
        }
        super().__init__(launched, around)

    def execute(self, task: Task) -> None:
        """Run a cell."""
        self.task = task
        self._last = Publisher(self.front, task.request)
        self._last.is_announced = task.announced
        self._last.announce(task.count)
        task.is_shown = True
        if task.counts:
            self._recollection.add(task.count, task.request.content["code"])
        self._send_cell(task)

    @abstractmethod
    def _send_cell(self, task: Task) -> None: ...

    def forward(self, request: Request) -> bool:
        """Answer what we know of the session without asking it."""
        if request.msg_type != "history_request":
            return False
        self.front.status(request, "busy")
        self._answer(request, self._recollection.answer(request.content))
        return True

    def _answer(self, request: Request, content: Dict) -> None:
        """Reply to a request that was told to be busy before."""
        reply = request.msg_type.removesuffix("_request") + "_reply"
        self.front.reply(request, reply, content)
        self.front.status(request, "idle")

    @property
    def _runs(self) -> bool:
        """Whether a cell runs there, for all we know."""
        return self.task is not None and self.task is not self._ending

    def interrupt(self) -> None:
        """As Ctrl-C in a terminal, unless the cell is over and only its reply must wait."""
        if self._runs:
            self.container.interrupt()

    def _interrupt_again(self, after_s: float) -> None:
        """What was sent has not reached the cell that runs: once more, if that still runs then."""
        task = self.task

        def again() -> None:
            if self.task is task and not self.is_closed:
                self.interrupt()

        self.loop.call_later(after_s, again)

    def last_words(self) -> list[str]:
        """Its cell shows them, once it runs any."""
        return [] if self.is_ready else super().last_words()

    def _send(self, data: bytes) -> None:
        """Write to its commands; what does not fit follows when there is room."""
        was_empty = not self._unsent
        self._unsent += data
        if was_empty:
            self._write()

    def _write(self) -> None:
        if self.is_closed:
            return
        try:
            self._unsent = self._unsent[os.write(self.agent.commands, self._unsent) :]
        except BlockingIOError:
            pass
        if self._unsent:
            self.loop.call_later(_RETRY_S, self._write)

    def _on_output(self, name: str, data: bytes) -> None:
        self._streams[name].write(data)

    def _publish_text(self, name: str, text: str) -> None:
        self.said = (self.said + text)[-_TAIL:]
        if self._last is not None:
            self._last.stream(name, text)

    def _flush(self, *, final: bool = False) -> None:
        """Publish all that was printed before now."""
        self.process.drain_all()
        for stream in self._streams.values():
            stream.flush(final=final)

    def drain(self) -> None:
        """Publish what is left."""
        self._flush(final=True)

    def _end_cell(self, failure: Dict | None) -> None:
        """The cell that runs is over; whatever says so again is not heard."""
        task, publisher = self.task, self._last
        if task is not None and publisher is not None and self._runs:
            self._ending = task
            self._answer_cell(task, publisher, failure)

    def _answer_cell(self, task: Task, publisher: Publisher, failure: Dict | None) -> None:
        if self.is_closed:
            return
        if failure is not None and publisher.too_soon_s > 0:
            again = partial(self._answer_cell, task, publisher, failure)
            self.loop.call_later(publisher.too_soon_s, again)
            return
        self._flush()
        if failure is None:
            publisher.ok()
        else:
            self.listener.on_failed(self, task)
            self.listener.on_error(self, task, failure)
            publisher.failure(failure)
        status = "ok" if failure is None else "error"
        self._finished(task, {"status": status, "execution_count": task.count})

    def _disconnect(self) -> None:
        for stream in self._streams.values():
            stream.flush()
        os.close(self.agent.commands)
        os.close(self.agent.events)
