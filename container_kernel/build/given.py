"""Given: what one step is given from outside its layers, for as long as it runs.

Its network, the site's files, download caches, mounts, secrets, the way to an ssh agent, devices.
None of it is ever in a layer: around to mount on are in the init layer, and values in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadArguments, InputNotFound
from ..folders import walk
from ..record import record
from ..runtime import attach, uplink
from ..runtime.attach import Around, Attached
from ..runtime.bundle import Mount
from ..runtime.mounts import Wish
from . import secrets
from .graph import Inputs
from .secrets import Mask, Secrets

if TYPE_CHECKING:
    from .execute import Command
    from .step import Shell
    from .workplace import Workplace

_CLOCK_TICK_NS = 20_000_000  # the host kernel stamps files with a clock that is so much behind
AGENT = "/run/ssh-agent"
"""Where the ssh agent's socket is in a step."""


@record(kw_only=True)
class Extras:
    """What a cell asks for besides a network and caches. ``directory`` is the notebook's folder."""

    directory: Path = Path("/")
    mounts: tuple[Wish, ...] = ()
    secrets: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    ssh: bool = False
    inputs: Inputs = Inputs()


def extras(step: Shell, directory: Path, inputs: Inputs) -> Extras:
    """What ``step`` asks for; ``inputs`` is what its key says of it."""
    return Extras(
        directory=directory,
        mounts=step.mounts,
        secrets=step.secrets,
        devices=step.devices,
        ssh=step.ssh,
        inputs=inputs,
    )


class Given:
    """Everything a step is given.

    Raises:
        CellError: something asked for is not there, or not to be had.
    """

    def __init__(self, place: Workplace, command: Command) -> None:
        self._place = place
        self._command = command
        self._since_ns = time.time_ns() - _CLOCK_TICK_NS
        self._stack = ExitStack()
        extras = command.extras
        self.values = {name: secrets.find(name, place.grants) for name in extras.secrets}
        self.mask = Mask(self.values.values())
        around = Around(extras.directory, place.grants.home, place.store.home)
        self.folders, self.files = attach.mount_points(extras.mounts, around)
        self.folders += [*command.caches, *command.answers]
        self.files += [*command.binds, *(f"{secrets.FOLDER}/{name}" for name in self.values)]
        self.files += [AGENT] if extras.ssh else []
        self.files += [_device(path, place) for path in extras.devices]
        self._shift = place.lent.userns if place.lent else None
        self._attached = Attached(place.host, around, shift=self._shift)
        try:
            self.link = uplink.shared(place.host, command.network)
            self._stack.callback(uplink.done, place.host, self.link)
            place.grants.check_network(self.link.kind)
            self._stack.callback(self._attached.close)
            for wish in extras.mounts:
                self._attached.add(wish)
        except BaseException:
            self._stack.close()
            raise

    @property
    def env(self) -> dict[str, str]:
        """Variables that say where things are."""
        return {"SSH_AUTH_SOCK": AGENT} if self._command.extras.ssh else {}

    def mounts(self, owner: int) -> tuple[Mount, ...]:
        """What is mounted, for a step whose user is ``owner`` on this host."""
        command, host = self._command, self._place.host
        found = [Mount.bind(self._bind(p), at, readonly=True) for at, p in command.binds.items()]
        for target, folder in command.caches.items():
            found.append(Mount.bind(self._bind(folder, readonly=False), target))
        for target, folder in command.answers.items():
            found.append(Mount.bind(self._bind_as_is(folder, readonly=False), target))
        if self.values:
            held = Secrets(host, self.values, owner)
            self._stack.callback(held.close)
            for name, file in held.files.items():
                found.append(Mount.bind_as_is(file, f"{secrets.FOLDER}/{name}", readonly=True))
        if command.extras.ssh:
            from ..runtime.agent_socket import AgentSocket  # with sockets, for those who ask

            agent = AgentSocket(host, self._place.grants.environ.get("SSH_AUTH_SOCK"), owner)
            self._stack.callback(agent.close)
            found.append(Mount.bind(agent.path, AGENT))
        devices = (Mount.device(path) for path in command.extras.devices)
        return (*found, *self._attached.mounts, *devices)

    def check_read(self) -> None:
        """That what could only be read is what the step's key says, and was all the time.

        Raises:
            InputNotFound: somebody changed it meanwhile, be it back again.
        """
        inputs, now_ns = self._command.extras.inputs, time.time_ns()
        for wish, mount in zip(self._attached.wishes, self._attached.mounts, strict=True):
            if wish.kind == "path" and not wish.is_writable:
                info = os.stat(mount.source)
                is_it = (info.st_dev, info.st_ino) == inputs.inodes[wish.target]
                changes = _changes_ns(mount.source)
                if not is_it or any(inputs.since_ns <= one <= now_ns for one in changes):
                    raise InputNotFound(
                        f"{wish.source} changed while the step could read it",
                        hint="nothing was frozen; run the cell again when nothing writes there",
                    )

    def check_layer(self, upper: Path) -> None:
        """That no secret is in the layer, nor was left in a cache.

        Raises:
            StepFailed: one is.
        """
        if self.values:
            from . import leaks  # for those who have secrets

            leaks.clean_caches(self._command.caches, self.values, self._since_ns)
            leaks.check_layer(upper, self.values, self._place.store)

    def close(self) -> None:
        """Take it all back."""
        self._stack.close()

    def _bind(self, source: Path, *, readonly: bool = True) -> Path:
        """Of the disk, with the owners that the step knows."""
        try:
            return self._bind_as_is(source, readonly=readonly, shift=self._shift)
        except OSError:  # a file system that cannot: what all may read is read nevertheless
            return self._bind_as_is(source, readonly=readonly)

    def _bind_as_is(self, source: Path, *, readonly: bool, shift: int | None = None) -> Path:
        bound = self._place.host.bind(source, readonly=readonly, shift=shift)
        self._stack.callback(self._place.host.unbind, bound)
        return bound


def _changes_ns(top: str) -> Iterator[int]:
    """When each thing at or below ``top`` was changed last; of this no user can say otherwise."""
    yield os.lstat(top).st_ctime_ns
    for here, folders, files in walk(top):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                yield os.lstat(os.path.join(here, name)).st_ctime_ns


def _device(path: str, place: Workplace) -> str:
    allowed = place.grants.devices
    if path not in allowed:
        raise BadArguments(
            f"the device {path} is not allowed: {', '.join(allowed) or 'none is'}",
            hint="an administrator or you allow devices in c.ContainerKernel.devices",
        )
    if not os.path.exists(path):
        raise InputNotFound(f"this host has no device {path}")
    return path
