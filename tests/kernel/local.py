"""Workbench and live container over plain processes of the host: the protocol needs no isolation.

They keep the same promises as the real ones, which the tests in ``test_real.py`` run too.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from container_kernel.build.events import Layer, StepFailed, StepFinished, StepLog, StepStarted
from container_kernel.build.step import Base, Shell
from container_kernel.errors import Interrupted, NoBase
from container_kernel.errors import StepFailed as StepFailedError
from container_kernel.oci.digest import Digest
from container_kernel.runtime.ended import Exit
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.relaxed import Relaxed


class LocalContainer:
    """A process group instead of a container."""

    memory_bytes = None
    cgroup = None
    limits = Limits()
    pressure = SimpleNamespace(begin=lambda: None, hits=lambda said: ())
    name = "local"

    def __init__(self, argv, env, cwd, stdin=None):
        self._process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.stdout = self._process.stdout.fileno()
        self.stderr = self._process.stderr.fileno()

    def poll(self):
        return self._exit(self._process.poll())

    def used_so_far(self):
        return None

    def wait(self, timeout_s=None):
        try:
            return self._exit(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            return None

    @staticmethod
    def _exit(code):
        if code is None:
            return None
        return Exit(None, -code) if code < 0 else Exit(code)

    def interrupt(self):
        self._signal(signal.SIGINT)

    def kill(self):
        self._signal(signal.SIGKILL)

    def _signal(self, number):
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def delete(self):
        self.kill()
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()


@dataclass
class LocalLive:
    """The host's own files as an image; ``kernels`` is a folder of kernelspecs, or None."""

    number: int
    ipc_dir: Path
    kernels: Path | None
    commands: dict[str, str]
    work: Path
    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(labels={}, env=()))
    containers: list = field(default_factory=list)
    image: None = None
    relaxed: Relaxed = field(default_factory=Relaxed)

    @property
    def ipc_mount(self):
        return str(self.ipc_dir)

    def renew_ipc(self):
        """Nothing: the folder is one of the host's own, and names in it are never used again."""

    @property
    def chain_id(self):
        return self.number

    def open(self, path):
        if "jupyter/kernels" in path:
            if self.kernels is None:
                return None
            path = str(self.kernels) + path.partition("jupyter/kernels")[2]
        elif (name := path.rpartition("/")[2]) not in self.commands:
            return None
        else:
            path = self.commands[name]
        try:
            return os.open(path, os.O_RDONLY)
        except OSError:
            return None

    def start(self, argv, env, *, cwd=None):
        argv = [self.commands.get(argv[0], argv[0]), *argv[1:]]
        container = LocalContainer(argv, {**os.environ, **env}, cwd or self.work)
        self.containers.append(container)
        return container

    def exec(self, argv, env, *, stdin=None):
        return LocalContainer(argv, {**os.environ, **env}, self.work, stdin)

    def close(self):
        for container in self.containers:
            container.delete()


class LocalWorkbench:
    """Runs ``%%build`` bodies on the host, freezes nothing; an image is a number."""

    def __init__(self, folder: Path, *, kernels=None, commands=None, base=None):
        self.folder = folder
        self.kernels = kernels
        self.commands = commands or {"python3": sys.executable, "sh": "/bin/sh"}
        self.current = base
        self.stages = {}
        self._number = 0
        self._live = None
        index = SimpleNamespace(remember_kernel=lambda *_: None)
        self.store = SimpleNamespace(take_notices=tuple, index=index)
        self.away = {}
        self.config = SimpleNamespace(idle_freeze=None, metrics_folder=None)
        # A container of plain processes cannot go along with anything.
        self.lives = SimpleNamespace(get=lambda stage: None, take_move=lambda stage: None)

    def build(self, cell_id, code, items, *, on_event, cancel):
        for item in items:
            if isinstance(item, Base):
                self.current = item.stage
                self.stages[item.stage] = item
                continue
            self._step(item, on_event, cancel)
        self._number += 1

    def _step(self, item, on_event, cancel):
        about = {"step_id": secrets.token_hex(4), "stage": "main", "number": 1, "total": 1}
        about["title"] = item.title
        on_event(StepStarted(**about))
        start = time.monotonic()
        body = item.body if isinstance(item, Shell) else "true"
        process = subprocess.Popen(
            ["sh", "-ec", body],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        out = process.stdout.fileno()
        while cancel.fd not in (found := select.select([out, cancel.fd], [], [])[0]):
            if not (data := os.read(out, 65536)):
                break
            on_event(StepLog(step_id=about["step_id"], text=data.decode()))
        if cancel.fd in found:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        process.stdout.close()
        seconds = time.monotonic() - start
        if code:
            error = Interrupted() if cancel.is_set else StepFailedError("failed", exit_code=code)
            end = {"exit_code": code, "tail": (), "seconds": seconds}
            on_event(StepFailed(**about, **end, error=error, interrupted=cancel.is_set))
            raise error
        digest = Digest.of(body.encode())
        layer = Layer(digest, digest, 1, item.title)
        on_event(StepFinished(**about, layer=layer, cached=False, seconds=seconds))

    def live(self, stage=None, *, on_event, cancel, restart=None):
        if self.current is None:
            raise NoBase("no base yet")
        if self._live is None or self._live.number != self._number:
            ipc = Path(tempfile.mkdtemp(prefix="ipc-", dir=self.folder))
            self._live = LocalLive(self._number, ipc, self.kernels, self.commands, self.folder)
        return self._live

    def stage(self, name=None):
        return SimpleNamespace(name=name or self.current, progress=None)

    def is_stale(self, name=None):
        return False

    def use(self, stage):
        self.current = stage

    def close(self):
        if self._live:
            self._live.close()
