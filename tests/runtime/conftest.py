"""Containers of every kind, started as users start them, with a probe inside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_kernel import config
from container_kernel.build.cancel import Cancel
from container_kernel.build.events import StepLog
from container_kernel.kernel.magics import build_items
from container_kernel.runtime.relaxed import Relaxed
from container_kernel.runtime.rootfs import Rootfs
from container_kernel.runtime.wish import Wish
from container_kernel.workbench import Workbench
from tests.runtime import facts
from tests.runtime.facts import read
from tests.runtime.hostile import Hostile

KINDS = ("run", "as-root", "exec", "build")
SETUID = "%%build --net none\ncp /probe /setuid-probe\nchmod 4755 /setuid-probe"
CANARY = "CONTAINER_KERNEL_CANARY"


class Prober:
    """A workbench with one image, the probe in it."""

    def __init__(self, workbench: Workbench, probe: Path) -> None:
        self.workbench = workbench
        self.folder = probe.parent
        for cell in ("%base busybox", "%copy probe /probe", SETUID):
            self.build(cell)

    def build(self, cell: str) -> str:
        """Build a cell; what its step said."""
        events: list[object] = []
        self.workbench.build(cell, cell, build_items(cell), on_event=events.append, cancel=Cancel())
        return "".join(event.text for event in events if isinstance(event, StepLog))

    @contextlib.contextmanager
    def live(self, **relaxed: object) -> Iterator[object]:
        """A container context on the image, as run cells and %%run have it."""
        image = self.workbench.image(on_event=lambda _: None, cancel=Cancel())
        live = self.workbench.fresh(
            image, Wish(limits=self.workbench.limits(), relaxed=Relaxed(**relaxed))
        )
        try:
            yield live
        finally:
            live.close()

    def facts(self, kind: str, *, quick: bool = False) -> facts.Facts:
        """What a container of that kind answers."""
        script = facts.script(quick=quick)
        if kind == "build":
            return facts.Facts(
                kind, self.build(f"%%build --net none\n: {os.urandom(4).hex()}\n{script}")
            )
        with self.live(as_root=kind == "as-root") as live:
            if kind == "exec":
                live.start(["sleep", "100"])
                return facts.Facts(kind, read(live.exec(["sh", "-c", script])))
            return facts.Facts(kind, read(live.start(["sh", "-c", script])))


@contextlib.contextmanager
def probing(entered, oci_runtime, home, probe):
    """What starts probed containers, by a process with files open that they must not get."""
    environ = {
        **os.environ,
        "CONTAINER_KERNEL_HOME": str(home),
        "CONTAINER_KERNEL_RUNTIME": oci_runtime,
    }
    workbench = Workbench(config.load(environ), entered, probe.parent, parse=build_items)
    leaked = [os.open(path, os.O_RDONLY) for path in ("/", "/usr", "/etc", str(home)) * 12]
    for fd in leaked:
        os.set_inheritable(fd, True)
    yield Prober(workbench, probe)
    for fd in leaked:
        os.close(fd)
    workbench.close()


@pytest.fixture(scope="session")
def variable():
    """One of this process, which no container is to have."""
    os.environ[CANARY] = "seen"
    yield
    del os.environ[CANARY]


@pytest.fixture(scope="session")
def prober(variable, entered, oci_runtime, shared_home, probe):
    """What starts probed containers, on each OCI runtime."""
    with probing(entered, oci_runtime, shared_home, probe) as prober:
        yield prober


@pytest.fixture(scope="session", params=KINDS)
def found(request, prober):
    """The facts of a container of each kind."""
    return prober.facts(request.param)


@pytest.fixture(scope="session")
def hostile(place, prober):
    """On each OCI runtime."""
    return Hostile(place, prober)


@pytest.fixture
def rootfs(host, shared_store, busybox):
    """A busybox file system, mounted."""
    rootfs = Rootfs(host, shared_store, busybox.chain_id)
    yield rootfs
    rootfs.discard()
