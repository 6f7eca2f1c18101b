"""Starts an inner kernel in a container: chooses which, lays out its files, runs it.

Called in the worker thread, so that a slow start stops nobody.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .. import agent
from ..errors import CellError
from ..record import record
from .connection import ConnectionInfo
from .kernelspec import DEFAULT_PATH, KernelSpec, find_spec, has_command, has_file
from .mailbox import Mailbox

if TYPE_CHECKING:
    from ..runtime.container import Container
    from ..runtime.live import Live

SPEC_LABEL = "io.container-kernel.kernelspec"
PYTHON_AGENT, SHELL_AGENT = "python", "shell"
_PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}

Choice = KernelSpec | str
"""What is to be started: a kernelspec of the image, or the kind of agent."""


@record(frozen=False)
class Launched:
    """An inner kernel's process that was just started, and how to reach it."""

    live: Live
    choice: Choice
    container: Container
    mailbox: Mailbox
    spec: KernelSpec | None = None
    connection: ConnectionInfo | None = None
    agent: Agent | None = None

    def forget(self) -> None:
        """Close what it is reached by. Its container is ended by whoever closes ``live``."""
        self.mailbox.close()
        if self.agent is not None:
            os.close(self.agent.commands)
            os.close(self.agent.events)


@record
class Agent:
    """An agent that was started: its kind, its files inside, the host's ends of its FIFOs."""

    kind: str
    file: str
    events_inside: str
    commands: int
    events: int


def choose(live: Live, given: KernelSpec | None = None) -> Choice:
    """The kernel ``given``, else what the image offers: a kernelspec, or an agent's kind.

    Raises:
        CellError: the image has nothing that could run a cell.
    """
    spec = given or find_spec(live.open, dict(live.config.labels).get(SPEC_LABEL))
    if spec:
        return spec
    for command, kind in (("python3", PYTHON_AGENT), ("sh", SHELL_AGENT)):
        if has_command(live.open, command, _path(live)):
            return kind
    raise CellError(
        "this image has no Jupyter kernel, no python3 and no sh: nothing in it can run a cell",
        hint="build on a base that has at least a shell",
    )


def launch(live: Live, given: KernelSpec | None = None) -> Launched:
    """Start what `choose` finds.

    Raises:
        CellError: the image has nothing that could run a cell.
    """
    choice = choose(live, given)
    live.renew_ipc()
    mailbox = Mailbox(Path(live.ipc_dir), str(live.ipc_mount))
    try:
        if isinstance(choice, str):
            return _launch_agent(live, mailbox, choice)
        return _launch_spec(live, mailbox, choice)
    except BaseException:
        mailbox.close()
        raise


def _path(live: Live) -> str:
    """Where the image looks for commands."""
    return next((e[5:] for e in live.config.env if e.startswith("PATH=")), DEFAULT_PATH)


def _launch_spec(live: Live, mailbox: Mailbox, spec: KernelSpec) -> Launched:
    connection = ConnectionInfo(
        transport="ipc",
        ip=mailbox.inside("kernel"),
        ports=_PORTS,
        key=os.urandom(32).hex().encode(),
    )
    file = mailbox.write("connection.json", connection.to_json().encode())
    argv = spec.command(file)
    argv[0] = _present(live, argv[0], _path(live))
    container = live.start(argv, spec.env)
    return Launched(live, spec, container, mailbox, spec=spec, connection=connection)


def _present(live: Live, command: str, path: str) -> str:
    """``command`` as this image has it: a kernelspec from elsewhere may name another's path."""
    if command.startswith("/") and not has_file(live.open, command):
        command = command.rpartition("/")[2]
    if re.fullmatch(r"python[\d.]*", command) and not has_command(live.open, command, path):
        # By Jupyter's convention it is the Python the kernelspec was installed for.
        return "python3"
    return command


def _launch_agent(live: Live, mailbox: Mailbox, kind: str) -> Launched:
    name = {PYTHON_AGENT: "python.py", SHELL_AGENT: "shell.sh"}[kind]
    head, later = halves(Path(agent.__path__[0], name).read_bytes())
    file = mailbox.write(name, head)
    fifos = [mailbox.fifo("commands"), mailbox.fifo("events")]
    commands, events = mailbox.inside("commands"), mailbox.inside("events")
    if kind == PYTHON_AGENT:
        argv = ["python3", "-u", file, commands, events, mailbox.write("later.py", later)]
    else:
        # Interactive, so that an error or an interrupt ends the cell and not the shell.
        argv = ["sh", "-c", f"PS1= exec sh -i <{commands}"]
    try:
        container = live.start(argv, {})
    except BaseException:
        for fd in fifos:
            os.close(fd)
        raise
    return Launched(live, kind, container, mailbox, agent=Agent(kind, file, events, *fifos))


def halves(source: bytes) -> tuple[bytes, bytes]:
    """An agent's text up to its comment ``# Later``, and the rest with its lines' numbers kept."""
    head, mark, later = source.partition(b"\n# Later\n")
    return head + b"\n", b"\n" * (head.count(b"\n") + 1) + mark[1:] + later
