"""Connections: ``%net``, ``%mount``, ``%publish`` and their kin, and the flags of that name.

What is mounted or published is so at once, also in sessions that run. Another network is for a new
session: the variables that lead a program to a proxy are read when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import BadArguments, CellError
from ..runtime import mounts, volumes
from ..runtime.network import NONE, Network
from ..runtime.publish import Port, Published

if TYPE_CHECKING:
    from ..runtime.live import Live
    from ..workbench import Workbench
    from .magics import Command
    from .verbs import Context


def reach(workbench: Workbench, text: str) -> Network:
    """What ``--net text`` means here.

    Raises:
        BadArguments: a name nobody knows, or something that is no host.
    """
    if text == "none":
        return NONE
    from ..build import nets, site

    config = workbench.config
    return nets.resolve(text, site.collect(config.environ, config.user_home), config.networks)


def published(ports: Sequence[tuple[int, int]]) -> list[Published]:
    """The host's ends of ``--publish``, to be closed by the caller.

    Raises:
        CellError: a port is in use; none is taken then.
    """
    made: list[Published] = []
    try:
        for inside, outside in ports:
            made.append(Published(Port(inside, outside)))
    except BaseException:
        for port in made:
            port.close()
        raise
    return made


def told(port: Published) -> str:
    """Where a port is, in words."""
    return f"port {port.inside} of the container is at {port.url}\n"


def net(command: Command, context: Context) -> None:
    """Show or change the network of the session."""
    workbench, wanted = context.workbench, command.args.word()
    session = workbench.session
    if wanted is not None:
        network = reach(workbench, wanted)
        if network != session.network:
            session.network = network
            for stage in workbench.stage_names:
                workbench.lives.renew(stage, f"its network is {wanted} now")
        if network.kind == "host":
            from ..runtime.uplink import HOST_WARNING

            context.screen.stream("stderr", f"the session {HOST_WARNING}\n")
    known = [str(target) for target in session.network.targets]
    context.screen.show({"text/plain": "network: " + (", ".join(known) or session.network.kind)})


def mount(command: Command, context: Context) -> None:
    """Show what is mounted, or mount something."""
    words, session = command.args.words, context.workbench.session
    if len(words) == 1:
        raise BadArguments("%mount takes SRC and DST", hint="write it like '%mount data /data'")
    if words:
        access = ":rw" if command.args["rw"] else ""
        wish = _wish(f"{words[0]}:{words[1]}{access}")
        _check(wish, context)
        _everywhere(context.workbench, lambda live: live.mount(wish), wish.target)
        session.mounts.append(wish)
    lines = [
        f"{one.source} at {one.target}, {'read and write' if one.is_writable else 'read only'}"
        for one in session.mounts
    ]
    context.screen.show({"text/plain": "\n".join(lines) or "nothing is mounted"})


def unmount(command: Command, context: Context) -> None:
    """Undo ``%mount``."""
    session, target = context.workbench.session, command.args.words[0]
    found = next((wish for wish in session.mounts if wish.target == target), None)
    if found is None:
        known = ", ".join(wish.target for wish in session.mounts) or "nothing"
        raise CellError(f"nothing is mounted at {target}", hint=f"mounted: {known}")
    for live in context.workbench.lives:
        live.unmount(target)
    session.mounts.remove(found)


def publish(command: Command, context: Context) -> None:
    """Show the ports that are published, or publish one."""
    workbench, asked = context.workbench, command.args.word()
    session = workbench.session
    if asked is not None and command.args["stop"]:
        _stop(workbench, asked)
    elif asked is not None:
        port = published([_port(asked)])[0]
        session.ports.append(port)
        live = workbench.lives.get(workbench.current or "")
        if live is not None:
            live.lead(port)
    lines = "".join(told(port) for port in session.ports)
    context.screen.show({"text/plain": lines.rstrip() or "no port is published"})


def volume_list(command: Command, context: Context) -> None:
    """The volumes of the store."""
    names = volumes.names(context.workbench.store.home)
    context.screen.show({"text/plain": "\n".join(names) or "there are no volumes"})


def volume_rm(command: Command, context: Context) -> None:
    """Remove volumes with all in them."""
    for name in command.args.words:
        volumes.remove(context.workbench.store.home, name)
    context.screen.show({"text/plain": "removed " + ", ".join(command.args.words)})


VERBS = {
    "net": net,
    "mount": mount,
    "unmount": unmount,
    "publish": publish,
    "volume list": volume_list,
    "volume rm": volume_rm,
}


def _wish(text: str) -> mounts.Wish:
    try:
        return mounts.parse(text)
    except ValueError as error:
        raise BadArguments(f"%mount takes {error}, found {text!r}") from None


def _check(wish: mounts.Wish, context: Context) -> None:
    """That it can be mounted, also where no session runs yet."""
    from ..runtime import attach

    session, workbench = context.workbench.session, context.workbench
    attach.check_target(wish, session.mounts)
    if wish.kind == "path":
        around = attach.Around(context.directory, session.home, workbench.store.home)
        attach.is_file_source(wish.source, around)


def _port(text: str) -> tuple[int, int]:
    from . import values

    try:
        return values.port(text)
    except ValueError as error:
        raise BadArguments(f"%publish takes {error}, found {text!r}") from None


def _everywhere(workbench: Workbench, action: Callable[[Live], None], target: str) -> None:
    """Do it in each live container, or in none."""
    done: list[Live] = []
    try:
        for live in workbench.lives:
            action(live)
            done.append(live)
    except BaseException:
        for live in done:
            live.unmount(target)
        raise


def _stop(workbench: Workbench, asked: str) -> None:
    inside = _port(asked)[0]
    found = [port for port in workbench.session.ports if port.inside == inside]
    if not found:
        known = ", ".join(str(port.inside) for port in workbench.session.ports) or "none"
        raise CellError(f"port {inside} is not published", hint=f"published ports: {known}")
    for port in found:
        port.close()
        workbench.session.ports.remove(port)
