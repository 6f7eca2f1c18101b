"""The notebook's inner kernels: one per stage, started when needed, replaced when they die.

``run`` gives a cell to the kernel of the present stage. When something was built since the last
one, the workbench is asked first what the present container is; if it is another, the old inner
kernel is let go and a new one started.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InnerKernelDied, Interrupted
from ..record import record
from . import notices
from .inner import READY_TIMEOUT_S, Inner, Surroundings, Task
from .notices import OTHER_KERNEL
from .process import end
from .worker import Worker

if TYPE_CHECKING:
    from ..runtime.container import Container
    from ..runtime.live import Live
    from ..runtime.lives import Move
    from .kernelspec import KernelSpec
    from .launch import Choice, Launched

FindLive = Callable[[], "Place"]
GRACE_S = 1.0


@record
class Place:
    """Where run cells go: a stage and its live container.

    ``spec`` is the kernel to start there, where that is not the image's to say. ``choice`` is what
    would be started there now; None lets any go on that runs. ``move`` is what became of the
    container when the image changed, if it did.
    """

    stage: str
    live: Live
    spec: KernelSpec | None = None
    choice: Choice | None = None
    move: Move | None = None


@record
class Waiting:
    """What waits for an inner kernel, and who to tell if there will be none."""

    action: Callable[[Inner], object]
    failed: Callable[[BaseException], object]
    find_live: FindLive


class Inners:
    """Inner kernels by stage; the current one runs cells."""

    def __init__(self, around: Surroundings, worker: Worker) -> None:
        self._around = around
        self._worker = worker
        self._all: dict[str, Inner] = {}
        self._is_preparing = False
        self._waiting: Waiting | None = None
        self.current: Inner | None = None
        self.is_stale = True
        self.last_info: dict[str, Any] = {}
        self._notice = ""
        self._has_lost = False
        self._relaxed: tuple[str, ...] = ()
        self._is_closed = False

    @property
    def ready(self) -> Inner | None:
        """The present inner kernel, if it answers."""
        return self.current if self.current is not None and self.current.is_ready else None

    @property
    def task(self) -> Task | None:
        """The cell that an inner kernel runs."""
        return self.current.task if self.current else None

    @property
    def ready_now(self) -> Inner | None:
        """Where a cell may run at once; None if anything must be made ready or told first."""
        must_wait = self.is_stale or self._is_preparing or self._relaxed
        return None if must_wait else self.ready

    def when_ready(
        self,
        action: Callable[[Inner], object],
        find_live: FindLive,
        failed: Callable[[BaseException], object],
    ) -> None:
        """Make ready what is needed, then call ``action``, or ``failed`` if that cannot be."""
        self._waiting = Waiting(action, failed, find_live)
        self.prepare(find_live)

    def prepare(self, find_live: FindLive) -> None:
        """Have the present inner kernel running."""
        if self._is_preparing:
            return
        if self.current is not None and not self.is_stale:
            self.run_waiting()
            return
        self._is_preparing = True
        self.is_stale = False
        self._worker.submit(find_live, self._found)

    def has_run(self, live: Live) -> bool:
        """Whether cells have run in the session in ``live``: whether it has variables."""
        return any(inner.has_run for inner in self._all.values() if inner.live is live)

    def has_moved(self, live: Live) -> bool:
        """Whether the image in ``live`` is another than when the session there was started."""
        return any(i.started_on != live.chain_id for i in self._all.values() if i.live is live)

    def may_stay(self, live: Live, choice: Choice | None) -> bool:
        """Whether the session in ``live`` is of the kind that it is to be."""
        return choice is None or any(
            inner.choice == choice for inner in self._all.values() if inner.live is live
        )

    def take_notice(self) -> str:
        """What the next cell's author must know of the session it runs in; each is told once."""
        notice, self._notice = self._notice, ""
        return notice

    def take_relaxed(self) -> tuple[str, ...]:
        """The settings that weaken a session just started; each session's are told once."""
        words, self._relaxed = self._relaxed, ()
        return words

    def forget_waiting(self) -> None:
        """The cell that waits was interrupted."""
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.failed(Interrupted("interrupted before the cell began to run"))

    @property
    def is_waiting(self) -> bool:
        """Whether a cell waits for its inner kernel."""
        return self._waiting is not None

    @property
    def is_busy(self) -> bool:
        """Whether one is being made ready, or has something to do."""
        return self._is_preparing or self.is_waiting or any(i.is_busy for i in self._all.values())

    def by_stage(self) -> dict[str, Container]:
        """The containers they run in, by stage."""
        return {stage: inner.container for stage, inner in self._all.items()}

    def containers(self) -> list[Container]:
        """Those they run in."""
        return [inner.container for inner in self._all.values()]

    def _found(self, place: Place | None, error: BaseException | None) -> None:
        if error is not None or place is None:
            self._is_preparing = False
            self.is_stale = True
            self._fail(error or RuntimeError("the workbench gave no container"))
            return
        self.current = next((i for i in self._all.values() if i.live is place.live), None)
        if self.current is not None and place.choice in (None, self.current.choice):
            self._confirm(self.current)
            if place.move is not None and self.current.has_run:
                self._notice = notices.kept(place.move.reason)
            self._is_preparing = False
            self.run_waiting()
            return
        self._replace(place)
        self._worker.submit(lambda: _launch(place), partial(self._launched, place.stage))

    def _confirm(self, inner: Inner) -> None:
        """The cells want it: what it says of itself counts from now on."""
        was_guess, inner.is_guess = inner.is_guess, False
        if was_guess and inner.is_ready:
            self._around.listener.on_ready(inner)

    def _replace(self, place: Place) -> None:
        """Let the stage's inner kernel go, if it has one, and note why."""
        old = self._all.get(place.stage)
        has_lost, self._has_lost = self._has_lost, False
        if has_lost or (old is not None and old.has_run):
            self._notice = _why_replaced(place.move, self.current is None)
        if old is not None:
            self._let_go(old)

    def _launched(self, stage: str, launched: Launched | None, error: BaseException | None) -> None:
        self._is_preparing = False
        if error is not None or launched is None:
            self.is_stale = True
            self._fail(error or RuntimeError("nothing was started"))
            return
        if self._is_closed:
            launched.forget()
            return
        self._relaxed = launched.live.relaxed.words
        self.current = self._all[stage] = _open(launched, self._around)

    def adopt(self, stage: str, launched: Launched, *, is_guess: bool) -> None:
        """Take up an inner kernel that was started before the loop ran."""
        self._relaxed = launched.live.relaxed.words
        inner = self._all[stage] = _open(launched, self._around)
        inner.is_guess = is_guess

    def _fail(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.failed(error)

    def run_waiting(self) -> None:
        """Run the cell that waits, if what it waits for is there.

        An inner kernel may have been started for an image that a build cell has changed meanwhile.
        """
        inner, waiting = self.ready, self._waiting
        if inner is None or waiting is None or self._is_preparing:
            return
        if self.is_stale:
            self.prepare(waiting.find_live)
            return
        self._waiting = None
        waiting.action(inner)

    def died(self, inner: Inner) -> InnerKernelDied:
        """Clear up after an inner kernel that ended by itself; what to tell the user."""
        error = _obituary(inner)
        is_awaited = inner is self.current and not self._is_preparing
        if self._is_preparing:
            self._has_lost = self._has_lost or inner.has_run
        elif inner.task is None and inner.has_run:  # no cell says so: the next one does
            ended = notices.ended(str(inner.process.exit() or "has ended"))
            self._notice = notices.replaced(ended, is_of_image=False)
        self._remove(inner)
        if is_awaited:  # else the workbench closed it for another that takes its place
            self._fail(error)
        return error

    def _let_go(self, inner: Inner) -> None:
        inner.ask_to_end()
        self._remove(inner)

    def _remove(self, inner: Inner) -> None:
        self._all = {stage: one for stage, one in self._all.items() if one is not inner}
        if self.current is inner:
            self.current = None
            self.is_stale = True
        inner.close()
        container = inner.container
        self._worker.submit(lambda: end(container, GRACE_S), lambda *_: None)

    def close(self) -> None:
        """Let all go, also what is being launched."""
        self._is_closed = True
        for inner in list(self._all.values()):
            self._let_go(inner)


def _why_replaced(move: Move | None, is_other_container: bool) -> str:
    if not is_other_container:
        return notices.replaced(OTHER_KERNEL)
    if move is None:
        return notices.replaced()
    return notices.replaced(move.reason, is_of_image=move.is_of_image)


def _launch(place: Place) -> Launched:
    from .launch import launch

    return launch(place.live, place.spec)


def _open(launched: Launched, around: Surroundings) -> Inner:
    if launched.connection is not None:
        from .zmq_inner import ZmqInner

        return ZmqInner(launched, around)
    from .launch import PYTHON_AGENT

    assert launched.agent is not None
    if launched.agent.kind == PYTHON_AGENT:
        from .python_inner import PythonInner

        return PythonInner(launched, around)
    from .shell_inner import ShellInner

    return ShellInner(launched, around)


def _obituary(inner: Inner) -> InnerKernelDied:
    exit_ = inner.process.exit()
    if inner.gave_up:
        what = f"the kernel in the container did not answer within {READY_TIMEOUT_S:.0f} s"
    elif inner.is_ready:
        what = f"the kernel in the container {exit_ or 'ended'}"
    else:
        what = f"the kernel could not start: it {exit_ or 'ended'}"
    text = "\n".join([what, *(f"  {line}" for line in inner.last_words())])
    hits = exit_.hits if exit_ is not None else ()
    if inner.is_ready and hits:
        from .limiting import hints, with_limits

        hint = f"{hints(hits)}; {InnerKernelDied.hint}"
        return InnerKernelDied(with_limits(text, hits), hint=hint)
    if inner.is_ready:
        return InnerKernelDied(text)
    return InnerKernelDied(text, hint="change the build cells so that it can, then run this again")
