"""Fresh: ``%%run``, a cell in a container of its own that is gone afterwards."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ..build import slugs
from ..build.inputs import Entry, Folder
from ..display import amounts, warnings
from ..errors import BadArguments, CellError, CommandFailed
from ..runtime.live import WORK
from ..runtime.relaxed import Relaxed
from ..runtime.slug import is_slug
from ..runtime.wish import Wish
from . import images, limiting
from .arguments import Arguments
from .limit_flags import asked
from .magics import Command
from .pump import pump

if TYPE_CHECKING:
    from ..build.events import Image
    from ..runtime.ended import Usage
    from ..runtime.live import Live
    from ..runtime.publish import Published
    from .verbs import Context


def run(command: Command, context: Context) -> None:
    """Run the body, or the command with the body as its input.

    Raises:
        CommandFailed: it ended with another status than 0, or took too long.
        CellError: the image or the input is not there, or two of each are named.
    """
    args = command.args
    stdin, ports = _stdin(command, context), []
    try:
        if args["publish"]:
            ports = _published(args["publish"], context)
        live = _open(args, context, ports)
    except BaseException:
        _close(stdin)
        _close_all(ports)
        raise
    try:
        heard = limiting.Listening(context.screen.stream)
        argv = list(args.words) or ["sh", "-c", command.body or ""]
        started = time.monotonic()
        try:
            cwd = (live.config.workdir or "/") if args["failed"] else WORK
            container = live.start(argv, {}, cwd=cwd, stdin=stdin)
        finally:
            _close(stdin)
        try:
            pump(container, heard, context.cancel, timeout_s=live.limits.timeout_s)
        except CommandFailed as error:
            raise limiting.explained(error, container, heard.said) from None
        finally:
            if refused := live.link.refused():
                said = f"network: the --net list refused {', '.join(refused)}\n"
                context.screen.stream("stderr", said)
            if args["meters"]:
                shown = _meters(time.monotonic() - started, container.usage())
                context.screen.show({"text/plain": shown})
    finally:
        live.close()
        _close_all(ports)


def _published(wanted: Sequence[tuple[int, int]], context: Context) -> list[Published]:
    from . import connections

    ports = connections.published(wanted)
    context.screen.stream("stdout", "".join(map(connections.told, ports)))
    return ports


def _close_all(ports: Sequence[Published]) -> None:
    for port in ports:
        port.close()


def _open(args: Arguments, context: Context, ports: Sequence[Published]) -> Live:
    workbench = context.workbench
    image = _image(args, context)
    wanted = asked(args.flags)
    limits = workbench.limits(wanted)
    if note := limiting.unheld(wanted, limits, workbench.host.runtime.cgroup):
        context.screen.stream("stderr", note)
    beyond = Relaxed(
        as_root=args["as-root"], capabilities=args["add-cap"], no_seccomp=args["no-seccomp"]
    )
    relaxed = told = workbench.config.relaxed(beyond)
    if args["failed"]:
        from .failing import AS_THE_STEP

        relaxed |= AS_THE_STEP
    from .connections import reach

    wish = Wish(
        limits=limits,
        network=reach(workbench, args["net"]),
        mounts=(*args["mount"], *args["tmpfs"]),
        ports=ports,
        home=workbench.config.user_home,
        relaxed=relaxed,
    )
    live = workbench.fresh(image, wish)
    if told.words:
        context.screen.show(warnings.relaxed(told.words), warnings.metadata(told.words))
    if live.link.notice:
        context.screen.stream("stderr", f"network: {live.link.notice}\n")
    return live


def _image(args: Arguments, context: Context) -> Image:
    workbench, reference = context.workbench, args["image"]
    named = [f"--{flag}" for flag in ("stage", "image", "failed") if args[flag]]
    if len(named) > 1:
        raise BadArguments(
            f"%%run takes --stage or --image or --failed, found {' and '.join(named)}",
            hint="leave all but one out",
        )
    if args["failed"]:
        from ..build import failures

        return failures.last(workbench.store).image
    if reference is None:
        stage = args["stage"]
        if away := workbench.away.get(stage or workbench.current or ""):
            return away
        return workbench.image(stage, on_event=context.screen.on_event, cancel=context.cancel)
    if is_slug(reference):
        return slugs.attach(workbench.host, workbench.store, reference, context.directory)
    if digest := workbench.store.find_image(reference):
        return images.image(workbench.store, digest)
    return workbench.find_image(reference, context.cancel)


def _meters(seconds: float, usage: Usage | None) -> str:
    parts = [f"took {amounts.seconds(seconds)}"]
    if usage:
        parts.append(f"CPU {amounts.seconds(usage.cpu_seconds)}")
        parts.append(f"memory {amounts.size(usage.peak_memory_bytes)} at most")
    return " · ".join(parts)


# Standard input


def _stdin(command: Command, context: Context) -> int | None:
    """What the command reads: a descriptor, or None for nothing."""
    args, body = command.args, command.body or ""
    named = [flag for flag in ("stdin", "stdin-cell") if args[flag] is not None]
    is_input = bool(args.words and body.strip())
    if len(named) + is_input > 1:
        found = " and ".join([*(f"--{flag}" for flag in named), *["the body"] * is_input])
        raise BadArguments(f"%%run takes its input from one place, found {found}")
    if args["stdin"] is not None:
        return _file(args["stdin"], context)
    if args["stdin-cell"] is not None:
        return _memory_file(context.outputs.text(args["stdin-cell"]))
    return _memory_file(body) if args.words else None


def _file(name: str, context: Context) -> int:
    """A file of the notebook's folder. Run cells can put links there: none leads outside."""
    with closing(Folder.of_notebook(context.directory)) as folder:
        folder.check(name)
        try:
            with folder.open(name, Entry("", 0)) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return os.dup(file.fileno())
        except IsADirectoryError:
            pass
    raise CellError(f"--stdin takes a file, and {name} is none")


def _memory_file(text: str) -> int:
    """A file that is nowhere, with ``text`` in it, to be read from its start."""
    fd = os.memfd_create("stdin")
    with os.fdopen(os.dup(fd), "w", encoding="utf-8") as file:
        file.write(text)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
