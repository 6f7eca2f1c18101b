"""``exec`` and ``shell``: a command in a fresh container; its exit code is ours."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..build import failures, slugs
from ..build.events import Event, Image, OnEvent, StepFinished
from ..build.step import Base
from ..display import warnings
from ..errors import UsageError
from ..kernel import connections, failing, limiting
from ..kernel.limit_flags import asked
from ..runtime.live import WORK, Live
from ..runtime.relaxed import Relaxed
from ..runtime.slug import is_slug
from ..runtime.wish import Wish
from . import notebook as notebooks
from .arguments import Options
from .build import Bench, bench
from .report import Report
from .terminal import Terminal, command

if TYPE_CHECKING:
    from ..runtime.container import Container
    from ..runtime.ended import Exit

TIMED_OUT = 124  # as timeout(1) has it
_CHUNK = 65536


def execute(options: Options, report: Report) -> int:
    """Run a command; with ``--json`` its outputs are in the object."""
    words = _words(options)
    if not words:
        raise UsageError("exec needs a command", hint="write it after --, as in: exec -- ls -l")
    with bench(Path.cwd(), report) as here, _fresh(options, here, report) as live:
        stdin = _Stdin()
        container = live.start(words, {}, cwd=_cwd(options, live), stdin=stdin.read_end)
        stdin.begin()
        outputs = {1: bytearray(), 2: bytearray()} if report.is_json else None
        timeout_s = live.limits.timeout_s
        watch = _Watch(container, here, timeout_s)
        is_late = watch.carry(outputs)
        exit_ = container.delete()
        code = TIMED_OUT if is_late else exit_.status
    if is_late:
        report.note(f"stopped: it ran longer than {timeout_s:g} s; give it more with --timeout")
    else:
        _explain(exit_, report)
    if outputs is not None:
        shown = {name: outputs[fd].decode(errors="replace") for fd, name in _NAMES.items()}
        beyond = {"relaxed": list(live.relaxed.words)} if live.relaxed.words else {}
        report.result({"exit_code": code, **shown, **beyond}, "")
    return code


_NAMES = {1: "stdout", 2: "stderr"}


def shell(options: Options, report: Report) -> int:
    """A shell, or a command, with the user's terminal."""
    if not sys.stdin.isatty() or report.is_json:
        options.words = _words(options) or ["sh"]
        return execute(options, report)
    with bench(Path.cwd(), report) as here, _fresh(options, here, report) as live:
        terminal = Terminal()
        argv, cwd = command(_words(options)), _cwd(options, live)
        container = live.start(argv, {}, cwd=cwd, stdin=terminal.slave)
        terminal.close_slave()
        with terminal.attached():
            _converse(terminal, container)
        exit_ = container.delete()
        _explain(exit_, report)
        return exit_.status


def _words(options: Options) -> list[str]:
    words: list[str] = options.words
    return words[1:] if words[:1] == ["--"] else words


@contextmanager
def _fresh(options: Options, here: Bench, report: Report) -> Iterator[Live]:
    """A container context on the image that was asked for."""
    workbench = here.workbench
    wanted = asked({name.replace("_", "-"): value for name, value in vars(options).items()})
    limits = workbench.limits(wanted)
    if note := limiting.unheld(wanted, limits, workbench.host.runtime.cgroup):
        report.note(note.rstrip())
    beyond = Relaxed(
        as_root=options.as_root,
        capabilities=tuple(options.add_cap),
        no_seccomp=options.no_seccomp,
    )
    relaxed = told = workbench.config.relaxed(beyond)
    if options.failed:
        relaxed |= failing.AS_THE_STEP
    with ExitStack() as stack:
        ports = connections.published(options.publish)
        for port in ports:
            stack.callback(port.close)
            report.note(connections.told(port).rstrip())
        wish = Wish(
            limits=limits,
            relaxed=relaxed,
            network=connections.reach(workbench, options.net),
            mounts=(*options.mount, *options.tmpfs),
            ports=ports,
            home=workbench.config.user_home,
        )
        live = workbench.fresh(_image(options, here), wish)
        stack.callback(live.close)
        if told.words:
            report.note(warnings.text(told.words))
        if live.link.notice:
            report.note(f"network: {live.link.notice}")
        yield live
        if refused := live.link.refused():
            report.note(f"network: the --net list refused {', '.join(refused)}")


def _cwd(options: Options, live: Live) -> str:
    """Where the command starts: where the failed step did, or in the notebook's folder."""
    return (live.config.workdir or "/") if options.failed else WORK


def _image(options: Options, here: Bench) -> Image:
    """What a failed step left, a slug's image, or what ``%base`` makes of the reference."""
    if options.failed:
        notebook = notebooks.path_of(options.failed)
        return failures.of_notebook(here.workbench.store, notebook).image
    reference = options.image or _only_notebook()
    if is_slug(reference):
        workbench = here.workbench
        return slugs.attach(workbench.host, workbench.store, reference, Path.cwd())
    base, on_event = Base(reference), _unless_cached(here.on_event)
    here.workbench.build(None, base.title, (base,), on_event=on_event, cancel=here.cancel)
    return here.image()


def _explain(exit_: Exit, report: Report) -> None:
    """Say which limits it met, if it failed on some."""
    if exit_.hits:
        message = f"the command {exit_}"
        report.note(f"{limiting.with_limits(message, exit_.hits)}\nhint: {_hints(exit_)}")


def _hints(exit_: Exit) -> str:
    return "; ".join(f"raise it with {hit.flag} {hit.raised}" for hit in exit_.hits)


def _unless_cached(on_event: OnEvent) -> OnEvent:
    """Tell only of what takes time: a command's own output is what its user looks at."""

    def tell(event: Event) -> None:
        if not (isinstance(event, StepFinished) and event.cached):
            on_event(event)

    return tell


def _only_notebook() -> str:
    found = sorted(Path.cwd().glob("*.ipynb"))
    if len(found) == 1:
        return f"./{found[0].name}"
    raise UsageError(
        f"which image? there are {len(found) or 'no'} notebooks in this folder",
        hint="name one: --image debian:bookworm, --image ./notebook.ipynb, --image NAME",
    )


class _Stdin:
    """Our stdin as a pipe: the container gets no descriptor of the host but this one."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()

    def begin(self) -> None:
        """Copy from now on; the container has the other end."""
        os.close(self.read_end)
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        try:
            while data := os.read(0, _CHUNK):
                os.write(self._write_end, data)
        except OSError:
            pass  # it does not read any more, or we have no stdin
        os.close(self._write_end)


class _Watch:
    """Carries a container's output out until it ends, is too late, or is stopped."""

    def __init__(self, container: Container, here: Bench, timeout_s: float | None) -> None:
        self._container = container
        self._cancel_fd = here.cancel.fd
        self._end = time.monotonic() + timeout_s if timeout_s else None
        self._outputs = {container.stdout: 1, container.stderr: 2}

    def carry(self, kept: dict[int, bytearray] | None) -> bool:
        """Copy until its outputs are closed; True when time was up before that."""
        poll = select.poll()
        for fd in (*self._outputs, self._container.pidfd, self._cancel_fd):
            poll.register(fd, select.POLLIN)
        is_over = False
        while self._outputs:
            left = 200.0 if is_over else self._left_ms()
            ready = [fd for fd, _ in poll.poll(left)]
            if not ready and (is_over or left is not None):
                # What it left behind may hold the outputs open for ever.
                return not is_over
            for fd in ready:
                if fd in self._outputs:
                    if not self._copy(fd, kept):
                        poll.unregister(fd)
                        del self._outputs[fd]
                else:
                    poll.unregister(fd)
                    is_over = is_over or fd == self._container.pidfd
                    if fd == self._cancel_fd:
                        self._container.interrupt()
        return False

    def _left_ms(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic()) * 1000

    def _copy(self, fd: int, kept: dict[int, bytearray] | None) -> bool:
        data = os.read(fd, _CHUNK)
        number = self._outputs[fd]
        if kept is not None:
            kept[number] += data
        else:
            _write_all(number, data)
        return bool(data)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _converse(terminal: Terminal, container: Container) -> None:
    """Carry keys in and the screen out until the container is gone."""
    poll = select.poll()
    for fd in (0, terminal.master, container.pidfd):
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if terminal.master in ready and not terminal.screen():
            return
        if container.pidfd in ready and terminal.master not in ready:
            return
        if 0 in ready:
            terminal.keys()
