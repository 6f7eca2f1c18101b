"""The outer kernel: answers front ends, builds in the worker, relays run cells inside.

A request takes one of four ways: answered here at once; through the queue and answered here (build
cells and commands, in the worker); through the queue to the inner kernel; or straight to the
inner kernel (its control channel, its subshells).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import CellError, NoBase
from .answers import Answers
from .front import Front, Request
from .idle import Idle
from .info import expected
from .inner import Inner, Surroundings, Task, hidden_task, number
from .inners import GRACE_S, Inners
from .loop import Loop, guarded
from .publisher import Publisher, abort
from .queue import ShellQueue
from .watch import Watch
from .wire import ConnectionInfo, Dict
from .worker import Worker

if TYPE_CHECKING:
    from .cells import OwnCells
    from .head_start import HeadStart
    from .marking import Marker

_PREWARM_AFTER_S = 0.05
# Front ends ask once what a kernel is; they allow ipykernel itself no less.
_INTRODUCTION_S = 2.0


class App:
    """One kernel session."""

    def __init__(self, info: ConnectionInfo, make_cells: Callable[[App], OwnCells]) -> None:
        self.loop = Loop()
        self.front = Front(info, self.loop)
        self.worker = Worker(self.loop)
        self.inners = Inners(Surroundings(self.front, self.loop, self), self.worker)
        self.queue = ShellQueue(self._start)
        self.answers = Answers(self, info.ports)
        self.idle = Idle(self.loop, self.worker, self._is_busy, self.inners.containers)
        self.watch = Watch(self.front, self.loop, self.interrupt)
        self.isolation = ""
        self.count = 0
        self._make_cells = make_cells
        self._cells: OwnCells | None = None
        self._publisher: Publisher | None = None
        self._aborted: list[Request] = []
        self._prewarm = self.loop.call_later(0, lambda: None)
        self._is_closing = False
        self._marker: Marker | None = None
        self._asked: tuple[Task, Callable[[Dict | None], object]] | None = None

    @property
    def cells(self) -> OwnCells:
        """What runs our own cells; loaded with the first cell, not before the first reply."""
        if self._cells is None:
            self._cells = self._make_cells(self)
            self._cells.recall()  # before any cell, also one that was sent before we listened
        return self._cells

    def run(self) -> None:
        """Serve until shut down."""
        self.front.serve("control", self.idle.before(self._on_control))
        self.front.serve("shell", self.idle.before(self._on_shell))
        self.front.serve("stdin", self.idle.before(self._on_stdin))
        signal.signal(signal.SIGINT, lambda *_: self.loop.call_soon(self.interrupt))
        signal.signal(signal.SIGTERM, lambda *_: self.loop.call_soon(self.close))
        self.front.status(None, "starting")
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(0.005)
        # What the first cell needs is loaded while the front end connects, and what the last
        # kernel had built is taken up.
        self.loop.call_later(0, lambda: self.cells)
        self.loop.run()

    # Requests

    def _on_shell(self, request: Request) -> None:
        if self._is_closing:
            return
        if request.msg_type == "shutdown_request":
            self._shut_down(request)
        elif self.answers.goes_aside(request):
            self.answers.serve(request)
        else:
            self.queue.push(request)

    def _on_control(self, request: Request) -> None:
        if request.msg_type == "interrupt_request":
            self.front.status(request, "busy")
            self._read_shell()  # the cell that is meant may have come at the same time
            self.interrupt()
            self.front.reply(request, "interrupt_reply", {"status": "ok"})
            self.front.status(request, "idle")
        elif request.msg_type == "shutdown_request":
            self._shut_down(request)
        else:
            self.answers.serve(request)

    def _on_stdin(self, request: Request) -> None:
        if self.inners.ready and request.msg_type == "input_reply":
            self.inners.ready.forward(request)

    def _start(self, request: Request) -> None:
        if not request.is_execute:
            guarded(lambda: self.answers.serve(request))
            return
        try:
            self._execute(request)
        except Exception as error:  # a fault of ours is shown where it happened
            publisher = self._publisher or Publisher(self.front, request)
            publisher.announce(self.count)
            self._publisher = publisher
            self.finish(publisher, error)

    # Cells

    def _execute(self, request: Request) -> None:
        self._prewarm.cancel()
        publisher = self._publisher = Publisher(self.front, request)
        task = Task(request, self.count + 1)
        if not task.counts:
            task.count = self.count
        if not task.silent:
            self.front.outputs.begin(task.count, request.message.metadata.get("cellId"))
        if deleted := request.message.metadata.get("deletedCells"):
            self.cells.forget(deleted)
        code = request.content.get("code")
        try:
            if not isinstance(code, str):
                raise CellError("the cell has no text")
            cell = self.cells.parse(code)
        except CellError as error:
            self._begin_own(publisher, task)
            self.finish(publisher, error)
            return
        if cell is not None:
            self._begin_own(publisher, task)
            self.cells.run(publisher, cell)
        elif inner := self.inners.ready_now:
            self._run_in(inner, task)
        else:
            self._run_when_ready(publisher, task, code)

    def _begin_own(self, publisher: Publisher, task: Task) -> None:
        self.count = task.count
        publisher.announce(task.count)

    def _run_in(self, inner: Inner, task: Task) -> None:
        self.watch.begin(inner, task)
        inner.execute(task)

    def _run_when_ready(self, publisher: Publisher, task: Task, code: str) -> None:
        publisher.announce(task.count)
        task.announced = task.is_shown = True
        if not code.strip() and self.inners.current is None:
            self.finish(publisher, None)
            return

        def failed(error: BaseException) -> None:
            self.count = task.count
            if isinstance(error, NoBase) and publisher.is_silent:
                self.finish(publisher, error, quiet=True)
            else:
                self.finish(publisher, error)

        def run(inner: Inner) -> None:
            if notice := self.inners.take_notice():
                publisher.stream("stderr", notice)
            self.warn(publisher)
            self._run_in(inner, task)

        self.inners.when_ready(run, lambda: self.cells.find_live(publisher), failed)

    def warn(self, publisher: Publisher) -> None:
        """Say what weakens the isolation of the session, in the first cell that shows anything."""
        if not publisher.is_silent and (words := self.inners.take_relaxed()):
            from ..display import warnings

            data, metadata = warnings.relaxed(words), warnings.metadata(words)
            publisher.output("display_data", {"data": data, "metadata": metadata, "transient": {}})

    def finish(
        self, publisher: Publisher, error: BaseException | None, *, quiet: bool = False
    ) -> None:
        """Answer a cell of ours, then go on with the queue."""
        if self._publisher is not publisher:
            return
        wait = publisher.too_soon_s if error is not None and not quiet else 0.0
        if wait > 0:
            self.loop.call_later(wait, lambda: self.finish(publisher, error))
            return
        self._publisher = None
        if error is None:
            publisher.ok()
        else:
            if not quiet:
                self._collect_aborted(publisher.request)
            publisher.error(error)
        self._next(publisher.request)

    def _next(self, request: Request) -> None:
        aborted, self._aborted = self._aborted, []
        for waiting in aborted:
            abort(self.front, waiting)
        self.queue.done(request)
        self.idle.touch()
        if self.queue.running is None and self._cells and self._cells.has_base:
            self._prewarm.cancel()
            self._prewarm = self.loop.call_later(_PREWARM_AFTER_S, self.make_ready)

    def make_ready(self) -> None:
        """Start the inner kernel before the first run cell asks for it."""
        if self.queue.running is None and not self._is_closing and self._cells:
            self.inners.prepare(lambda: self.cells.find_live(None))

    def _is_busy(self) -> bool:
        """Whether anything is being done that an inner kernel has a part in, or may have."""
        return self.queue.running is not None or len(self.queue) > 0 or self.inners.is_busy

    def _collect_aborted(self, failed: Request) -> None:
        """The cells that wait behind one that failed.

        What the front end has sent by now, read or not, waits; what it sends once it has seen the
        reply does not. So this must be done before the reply leaves.
        """
        if failed.stops_on_error:
            self._read_shell()
            self._aborted = self.queue.take_cells()

    def _read_shell(self) -> None:
        """Take all that the front end has sent by now."""
        while self.front.read_one("shell", self._on_shell):
            continue

    def ask(self, inner: Inner, code: str, done: Callable[[Dict | None], object]) -> None:
        """Run code unseen in an inner kernel that runs no cell; ``done`` takes its reply.

        It takes None when the inner kernel ended instead.
        """
        task = hidden_task(self.front, code)
        self._asked = (task, done)
        inner.execute(task)

    def _take_answer(self, task: Task | None, reply: Dict | None) -> bool:
        if task is None or self._asked is None or self._asked[0] is not task:
            return False
        done, self._asked = self._asked[1], None
        done(reply)
        return True

    def _mark(self, request: Request) -> Dict:
        """The environment of the run cell that ``request`` is, if that is what it is."""
        inner = self.inners.current
        if self._marker is None or inner is None or inner.task is None:
            return {}
        return self._marker.mark(inner) if inner.task.request is request else {}

    # What an inner kernel tells

    def on_ready(self, inner: Inner) -> None:
        """A cell may wait for it."""
        if self._marker is None:
            from .marking import Marker

            self._marker, self.front.mark = Marker(), self._mark
        self._marker.start(inner)
        if not inner.is_guess:
            self.inners.last_info = inner.info
            self.answers.introductions.end_wait()
            self.cells.note_kernel(inner)
        self.idle.start(self.cells.idle_freeze_s)
        self.cells.watch_meters()
        self.inners.run_waiting()

    def on_failed(self, inner: Inner, task: Task) -> None:
        """Nothing that was sent with it may run."""
        self._collect_aborted(task.request)

    def on_error(self, inner: Inner, task: Task, content: Dict) -> None:
        """Say which limits it has met."""
        self.watch.failed(inner, task, content)

    def on_done(self, inner: Inner, task: Task, reply: Dict) -> None:
        """Its reply has been passed on already."""
        self.watch.end()
        if self._take_answer(task, reply):
            return
        self._publisher = None
        if task.counts:
            self.count = number(reply.get("execution_count")) or task.count
        self._next(task.request)

    def on_death(self, inner: Inner) -> None:
        """Tell the cell that ran in it."""
        self.watch.end()
        task, publisher = inner.task, self._publisher
        error = self.inners.died(inner)
        if self._take_answer(task, None):
            return
        if task is not None and publisher is not None and publisher.request is task.request:
            self.count = task.count
            if not task.is_shown:
                publisher.announce(task.count)
            publisher.count = task.count
            self.finish(publisher, error)

    # Interrupt and end

    def interrupt(self) -> None:
        """Stop what runs: the build, the wait for a container, or the cell inside."""
        if self._cells is not None:
            self._cells.cancel()
        if self.inners.is_waiting:
            self.inners.forget_waiting()
        elif self.inners.current is not None and self.inners.task is not None:
            self.inners.current.interrupt()

    def _shut_down(self, request: Request) -> None:
        content = {"status": "ok", "restart": bool(request.content.get("restart", False))}
        self.front.status(request, "busy")
        self.close()
        self.front.reply(request, "shutdown_reply", content)
        self.front.publish(request, "shutdown_reply", content)
        self.front.status(request, "idle")

    def close(self) -> None:
        """End the inner kernels and the workbench (at most a few seconds), then the loop."""
        if self._is_closing:
            return
        self._is_closing = True
        self.idle.stop()  # so that they can end by themselves
        if self._cells is not None:
            self._cells.cancel()
        self.inners.close()
        if self._cells is not None:
            self._cells.close()
        self.worker.finish(GRACE_S + 1.0)
        self.loop.stop()


def serve(
    info: ConnectionInfo,
    make_cells: Callable[[App], OwnCells],
    language: str = "",
    head_start: HeadStart | None = None,
    isolation: str = "",
) -> None:
    """Be a kernel at ``info`` until shut down, then end the process.

    ``language`` is what run cells are in until an inner kernel says so itself. With a head start,
    one has said so the last time, or is about to: then it has a moment to do so before front ends
    are answered what the kernel is.

    Nothing that still runs in a thread may hold up the end: whatever it was doing is safe to kill.
    """
    app = App(info, make_cells)
    app.inners.last_info = expected(language)
    app.isolation = isolation
    if head_start is not None and head_start.is_starting and not head_start.is_guess:
        app.inners.last_info = head_start.info or app.inners.last_info
        if not head_start.info:
            app.answers.introductions.wait(_INTRODUCTION_S)
    app.run()
    app.front.close()
    app.front.context.destroy(linger=500)
    os._exit(0)
