"""Our own cells: build cells and commands, run in the worker on the notebook's workbench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..build.cancel import Cancel
from ..build.step import Base
from ..errors import BaseNotFound, CellError, StepFailed
from ..record import record
from . import foreign, notices
from .inners import Place
from .kernelspec import KernelSpec
from .magics import BuildCell, CommandCell, RunCell, parse
from .publisher import Publisher
from .screen import Screen
from .wire import Dict, dump

if TYPE_CHECKING:
    from ..runtime.live import Live
    from ..workbench import Workbench
    from .app import App
    from .head_start import HeadStart
    from .inner import Inner
    from .launch import Choice
    from .metrics import Metrics


@record
class Given:
    """The image a kernel stands on where no cell says so, and the kernelspec to start in it."""

    image: str
    spec: KernelSpec | None

    @classmethod
    def of(cls, image: str, spec: str | None) -> Given:
        """From a command line; ``spec`` is a ``kernel.json``."""
        return cls(image, KernelSpec.parse("given", spec.encode(), "") if spec else None)


class OwnCells:
    """Parses cells, and runs those that are not for the inner kernel."""

    def __init__(
        self,
        app: App,
        make_workbench: Callable[[], Workbench],
        notebook: Path | None = None,
        head_start: HeadStart | None = None,
        given: Given | None = None,
    ) -> None:
        self._app = app
        self._given = given
        self._directory = notebook.parent if notebook else Path.cwd()
        self._make_workbench = make_workbench
        self._head_start = head_start
        self._made = head_start.workbench if head_start else None
        self._cancel: Cancel | None = None
        self._restart: bool | None = None
        self._again: tuple[str, Callable[[Screen, Cancel], None]] | None = None
        self._metrics: Metrics | None = None
        self.has_base = False

    def parse(self, code: str) -> BuildCell | CommandCell | None:
        """What of ours the cell is; None if it is a run cell.

        Raises:
            CellError: it is ours and wrong.
        """
        cell = parse(code, inner_magics=bool(self._inner_magics))
        return None if isinstance(cell, RunCell) else cell

    @property
    def idle_freeze_s(self) -> float | None:
        """The setting of that name, once there is anything to freeze."""
        return self._made.config.idle_freeze if self._made is not None else None

    @property
    def _inner_magics(self) -> frozenset[str]:
        inner = self._app.inners.ready
        return foreign.IPYTHON if inner is None else inner.magics

    def forget(self, deleted: object) -> None:
        """What deleted cells have built is no more, from the next cell on."""
        gone = _texts(deleted)
        self._app.inners.is_stale = True
        self._app.worker.submit(lambda: self._workbench().forget(gone), lambda *_: None)

    # Running

    def run(self, publisher: Publisher, cell: BuildCell | CommandCell) -> None:
        """Run a cell in the worker; ``App.finish`` follows."""
        if isinstance(cell, BuildCell):
            self._run(publisher, cell)
            return
        from . import verbs  # with what they show; a kernel's first cell is often no command

        if any(one.name == "send" for one in cell.commands):
            self._send(publisher, cell)
        elif needs := verbs.needs_live(cell.commands):
            self._app.inners.is_stale = True
            self._app.inners.when_ready(
                lambda inner: self._run_beside(publisher, cell, inner),
                lambda: self.find_live(publisher, needs.stage),
                lambda error: self._app.finish(publisher, error),
            )
        else:
            self._run(publisher, cell)

    def _send(self, publisher: Publisher, cell: CommandCell) -> None:
        from .sending import Sending, parcels

        def done(error: BaseException | None) -> None:
            self._app.inners.is_stale = True
            self._app.finish(publisher, error)

        def find(stage: str | None) -> Place:
            return self.find_live(publisher, stage)

        try:
            wanted = [one for command in cell.commands for one in parcels(command)]
        except CellError as error:
            done(error)
            return
        Sending(self._app, find, done).send(wanted)

    def _run_beside(
        self, publisher: Publisher, cell: BuildCell | CommandCell, inner: Inner
    ) -> None:
        self._app.warn(publisher)
        self._run(publisher, cell, inner)

    def _run(
        self, publisher: Publisher, cell: BuildCell | CommandCell, inner: Inner | None = None
    ) -> None:
        screen = Screen(self._app, publisher)
        cancel = self._new_cancel()

        def job() -> None:
            self._tell(screen)
            if isinstance(cell, BuildCell):
                self._build(publisher, cell, screen, cancel)
            else:
                from . import verbs

                context = verbs.Context(
                    self._workbench(),
                    screen,
                    cancel,
                    self._directory,
                    inner.info if inner else {},
                    self._app.front.outputs,
                    self._app.inners.has_run,
                    self._again[1] if self._again else None,
                )
                for command in cell.commands:
                    cancel.check()
                    verbs.run(command, context)

        def done(_: object, error: BaseException | None) -> None:
            self._ended(screen, cancel)
            self._app.inners.is_stale = True
            self.has_base = self._made is not None and self._made.current is not None
            self._app.finish(publisher, error)

        self._app.worker.submit(job, done)

    def _build(self, publisher: Publisher, cell: BuildCell, screen: Screen, cancel: Cancel) -> None:
        cell_id = publisher.request.message.metadata.get("cellId")
        code = str(publisher.request.content.get("code"))
        identity = cell_id if isinstance(cell_id, str) else None
        workbench = self._workbench()
        away, before = set(workbench.away), workbench.current
        self._note_line(workbench, "")
        try:
            workbench.build(identity, code, cell.items, on_event=screen.on_event, cancel=cancel)
        except BaseException:
            self._again = identity or code, partial(self._build, publisher, cell)
            raise
        if self._again and self._again[0] == (identity or code):
            self._again = None
        self._note_line(workbench, cell.items[-1].title)
        if workbench.current in away - set(workbench.away):
            screen.stream("stdout", notices.back(workbench.current or ""))
        if before not in (None, workbench.current) and not isinstance(cell.items[0], Base):
            screen.stream("stdout", notices.in_use(workbench.current or ""))
        self._restart = cell.restart
        if not cell.restart:
            self._keep_session(screen)

    @staticmethod
    def _note_line(workbench: Workbench, title: str) -> None:
        """Where the session is, for %undo; no image is made of it before that is asked for."""
        stage = workbench.stage() if workbench.current else None
        is_there = stage and stage.name not in workbench.away and not workbench.is_stale()
        if stage and stage.progress and is_there:
            workbench.past.append((stage.name, title, stage.progress))

    def _keep_session(self, screen: Screen) -> None:
        """Have the session on the image just built; what cannot be is left to the next run cell."""
        workbench, inners = self._workbench(), self._app.inners
        stage = workbench.current or ""
        live = workbench.lives.get(stage)
        if live is None or not inners.has_run(live):
            return
        is_kept = workbench.keep_live(at_any_price=self._restart is False)
        move = workbench.lives.take_move(stage)
        if is_kept and move and inners.may_stay(live, self._choice(workbench, stage, live)):
            # Front ends show stderr as a warning, and a session that goes on is none.
            screen.stream("stderr" if move.reason else "stdout", notices.kept(move.reason))

    def _choice(self, workbench: Workbench, stage: str, live: Live) -> Choice | None:
        """The kernel that ``live`` would get now; None when whatever runs there may stay."""
        if self._restart is False or not self._app.inners.has_moved(live):
            return None
        from .launch import choose

        return choose(live, self._spec_for(workbench, stage))

    def find_live(self, publisher: Publisher | None, stage: str | None = None) -> Place:
        """A stage's container; builds what is stale. Called in the worker."""
        screen = Screen(self._app, publisher)
        cancel = self._new_cancel()
        try:
            workbench = self._workbench()
            self._tell(screen)
            live = workbench.live(
                stage, on_event=screen.on_event, cancel=cancel, restart=self._restart
            )
            name = stage or workbench.current or ""
            return Place(
                name,
                live,
                self._spec_for(workbench, name),
                self._choice(workbench, name, live),
                workbench.lives.take_move(name),
            )
        except BaseNotFound as error:
            raise self._without_image(error) from None
        except StepFailed:
            self._again = None  # of a cell that was built before: whoever wants its image tries it
            raise
        finally:
            self._app.loop.call_soon(lambda: self._ended(screen, cancel))

    def _spec_for(self, workbench: Workbench, stage: str) -> KernelSpec | None:
        """The kernelspec to start in ``stage``, if that is not its image's to say."""
        if self._given is None or self._given.spec is None:
            return None
        is_given = workbench.stages[stage].base == self._given.image
        return self._given.spec if is_given else None

    def _without_image(self, error: BaseNotFound) -> BaseNotFound:
        """``error``, as one who chose a kernel with an image of its own understands it."""
        if self._given is None or error.reference != self._given.image:
            return error
        hint = "load the image (container-kernel image load), or begin a cell with another %base"
        return BaseNotFound(
            error.reference, what="this kernel's image is not in the store:", hint=hint
        )

    def _workbench(self) -> Workbench:
        if self._made is None:
            self._made = self._make_workbench()
        return self._made

    def _tell(self, screen: Screen) -> None:
        """What was wrong with the store and was mended when it was opened."""
        for notice in self._workbench().store.take_notices():
            screen.stream("stderr", f"{notice}\n")

    def _new_cancel(self) -> Cancel:
        self._cancel = Cancel()
        return self._cancel

    def _ended(self, screen: Screen, cancel: Cancel) -> None:
        """The worker is done with them. In the loop, where nobody is about to cancel."""
        screen.close()
        if self._cancel is cancel:
            self._cancel = None

    def cancel(self) -> None:
        """Stop what the worker does."""
        if self._cancel is not None:
            self._cancel.set()

    def close(self) -> None:
        """Close the workbench, after what the worker has to do before."""
        if self._metrics is not None:
            self._metrics.close()
        if self._made is not None:
            self._app.worker.submit(self._made.close, lambda *_: None)

    def recall(self) -> None:
        """Take up in the background what the last kernel of this notebook had built."""

        def job() -> bool:
            is_known = self._workbench().recall(self._given.image if self._given else None)
            if is_known:
                self.find_live(None)  # while what the head start began is still starting
            return is_known

        def done(is_known: bool | None, error: BaseException | None) -> None:
            # Whatever is wrong here is told by the first cell, which needs the same.
            self.has_base = self.has_base or bool(is_known and error is None)

        def make_ready(*_: object) -> None:
            if self.has_base:
                self._app.make_ready()

        # It is taken up as soon as it is there. What else the worker is asked for waits until
        # then: who looks for a container of this notebook must not start another.
        head_start = self._head_start
        if head_start is not None:
            head_start.when_over(lambda: self._app.loop.call_soon(partial(self._adopt, head_start)))
        self._app.worker.submit(job, done)
        self._app.worker.submit(head_start.wait if head_start else lambda: None, make_ready)

    def _adopt(self, head_start: HeadStart) -> None:
        found = head_start.wait()
        if found is not None:
            self._app.inners.adopt(*found, is_guess=head_start.is_guess)
        else:
            self._app.answers.introductions.end_wait()

    def note_kernel(self, inner: Inner) -> None:
        """Remember what it says of itself, for the next kernel on its image to say at once."""
        if self._given is None or self._given.spec is None:
            chain_id, info = inner.started_on, dump(inner.info).decode()
            workbench = self._workbench()
            self._app.worker.submit(
                lambda: workbench.store.index.remember_kernel(chain_id, info), lambda *_: None
            )

    def watch_meters(self) -> None:
        """Have the meters written where the settings say so, from the first container on."""
        workbench = self._made
        if workbench is None or workbench.config.metrics_folder is None or self._metrics:
            return
        from .metrics import Metrics

        name = workbench.host.namespace.run_dir.name
        folder = workbench.config.metrics_folder
        self._metrics = Metrics(self._app.loop, folder, name, self._app.inners.by_stage)
        self._metrics.start()

    # Completion and help

    def assist(self, kind: str, code: str, content: Dict) -> Dict | None:
        """Our answer to a completion, inspection or is_complete request; None if not ours."""
        cursor = content.get("cursor_pos")
        cursor = cursor if isinstance(cursor, int) else len(code)
        if kind == "complete_request":
            return self._complete(code, cursor)
        if kind == "inspect_request":
            from . import help

            text = help.help_at(code, cursor)
            data = {"text/plain": text}
            found = {"status": "ok", "found": True, "data": data, "metadata": {}}
            return found if text else None
        return self._is_complete(code)

    def _complete(self, code: str, cursor: int) -> Dict | None:
        from . import help, verbs

        names = verbs.names(self._made, self._directory) if self._made is not None else {}
        found = help.complete(code, cursor, names, inner_magics=self._inner_magics)
        if found is None:
            return None
        return {
            "status": "ok",
            "matches": list(found.matches),
            "cursor_start": found.start,
            "cursor_end": found.end,
            "metadata": {"_jupyter_types_experimental": found.kinds()},
        }

    def _is_complete(self, code: str) -> Dict | None:
        try:
            if self.parse(code) is None:
                return None
        except Exception:
            if not code.lstrip().startswith("%%") or "\n" in code.strip():
                return {"status": "invalid"}
            return {"status": "incomplete", "indent": ""}  # what a cell magic wants is yet to come
        is_open = code.lstrip().startswith("%%") and not code.endswith("\n")
        return {"status": "incomplete", "indent": ""} if is_open else {"status": "complete"}


def _texts(value: object) -> Sequence[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
