"""SIGKILL of each part of a kernel while it starts, runs, freezes and stops (threats, row A 6).

Who only serves the kernel (the OCI runtime, the container's first process, the kernel inside, the
network, the janitor) may die: the request is answered, and the next cells run. Who is the kernel
takes it along: nothing of it is left, and the next kernel works on the same store.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from container_kernel.runtime.processes import stat_fields
from tests.kernel.conftest import environ
from tests.kernel.processes import (
    command,
    descendants,
    is_running,
    name,
    namespaces,
    own_cgroups,
    state,
)
from tests.kernel.test_life_cycle import ServedKernel

OUTER = ("supervisor", "reaper", "worker")
INNER = ("runtime", "init", "inner", "network", "janitor")
PHASES = ("start", "run", "freeze", "stop")
RUNTIMES = ("crun", "runc")
GRID = [(victim, phase) for phase in PHASES for victim in (*OUTER, *INNER)]
random.Random(6).shuffle(GRID)
CASES, SAMPLE = 5 * len(GRID) * len(RUNTIMES), 2
ANSWERED_S, SEEN_S = 30, 3
_TICKS = os.sysconf("SC_CLK_TCK")
GONE_S = 30  # a sweep has what CPU others leave; the suite holds kernels to less
FREEZE = "%%build --net none\n: {}\nmkdir /d; for i in $(seq 500); do echo $i >/d/$i; done"


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    with tempfile.TemporaryDirectory(prefix="ck-parts-") as folder:
        home = Path(folder) / "home"

        def case(number: int, chance: random.Random) -> None:
            place = Path(folder) / str(number)
            place.mkdir()
            runtime = RUNTIMES[number % 2]
            if shutil.which(runtime):
                Case(place, home, runtime, chance).run(*GRID[number // 2 % len(GRID)])

        yield case


class WatchedKernel(ServedKernel):
    """A kernel whose processes are known by their beginning: numbers are given out again, those of
    processes and those of namespaces.
    """

    def __init__(self, folder: Path, home: Path, runtime: str) -> None:
        try:
            super().__init__(folder, home, runtime)
        except BaseException:  # it did not answer in time: it is not to go on alone
            self.kill(*descendants(self.server.pid))
            raise
        self.begun: dict[int, str] = {}
        self.namespaces: set[str] = set()
        self.cgroups: set[tuple[Path, int]] = set()
        self.janitor = self.over = 0

    def look(self) -> None:
        """Remember what there is of it, to see that nothing is left."""
        for pid in set(descendants(self.supervisor)) - self.begun.keys():
            self.begun[pid] = beginning(pid)
            self.namespaces |= namespaces(pid) - namespaces("self")
            with contextlib.suppress(OSError):
                self.cgroups |= own_cgroups(pid)
        self.janitor = self.janitor or next(iter(self.janitors), 0)
        self.begun.setdefault(self.janitor, beginning(self.janitor))

    def left(self) -> list[object]:
        self.family = [pid for pid, begun in self.begun.items() if beginning(pid) == begun]
        self.janitor = self.janitor if self.janitor in self.family else 0
        return [one for one in super().left() if not isinstance(one, int) or self._is_old(one)]

    def _is_old(self, pid: int) -> bool:
        return int(beginning(pid) or sys.maxsize) <= self.over

    def is_gone(self) -> bool:
        """Wait until nothing is left of it."""
        self.over = int(float(Path("/proc/uptime").read_text().split()[0]) * _TICKS)
        return self.leaves_nothing(GONE_S)


def beginning(pid: int) -> str:
    """When a process began, in ticks since the host did; nothing if it is gone."""
    with contextlib.suppress(OSError, IndexError):
        return stat_fields(f"/proc/{pid}/stat")[19]
    return ""


class Case:
    """One kernel, of which one part is killed once."""

    def __init__(self, folder: Path, home: Path, runtime: str, chance: random.Random) -> None:
        self._start = lambda: WatchedKernel(folder, home, runtime)
        self._chance = chance
        self._home = home
        self.kernel = self._start()

    def run(self, victim: str, phase: str) -> None:
        kernel, told = self.kernel, f"{victim} while it should {phase}"
        try:
            self._prepare(phase, with_network=victim == "network")
            request = self._begin(phase, victim)
            self._kill(victim)
            if victim in OUTER or phase == "stop":
                assert kernel.is_gone(), f"{told}: left {kernel.left()}"
            else:
                self._goes_on(request, told)
        finally:
            kernel.close()
        self._next_one_works(told)

    def _prepare(self, phase: str, *, with_network: bool) -> None:
        assert self.kernel.run("%base busybox")[0]["status"] == "ok"
        if with_network and os.access("/dev/net/tun", os.W_OK):
            self.kernel.run("%net pasta")
        if phase != "start":
            assert self.kernel.run("echo x")[0]["status"] == "ok"

    def _begin(self, phase: str, victim: str) -> str:
        """Have the kernel do that; the request's id."""
        client = self.kernel.client
        if phase == "stop":
            client.shutdown()
            return ""
        fresh = "%%run\nsleep 0.3" if victim == "runtime" else "sleep 1; echo x"
        code = {"start": "echo x", "run": fresh, "freeze": FREEZE.format(self._chance.random())}
        return client.execute(code[phase])

    def _kill(self, victim: str) -> None:
        """Kill it at any moment, or as soon as it is there."""
        waits_until = time.monotonic() + self._chance.uniform(0, 0.5)
        end = time.monotonic() + SEEN_S
        while time.monotonic() < end:
            self.kernel.look()
            found = self._find(victim)
            is_time = victim == "runtime" or time.monotonic() > waits_until
            if found and is_time:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found[0], signal.SIGKILL)
                return
            if not is_running(self.kernel.supervisor):
                return
            time.sleep(0.001)

    def _find(self, victim: str) -> list[int]:
        family = [pid for pid in descendants(self.kernel.supervisor) if is_running(pid)]
        inside = [pid for pid in family if command(pid) == "/run/container-kernel-init"]
        match victim:
            case "runtime":
                return [pid for pid in family if name(pid).startswith(RUNTIMES)]
            case "init":
                return inside
            case "inner":
                return [pid for pid in family if name(pid) == "sh" and command(pid) == "sh"]
            case "network":
                return [pid for pid in family if name(pid).startswith(("pasta", "passt"))]
            case "janitor":
                return self.kernel.janitors
        return family[OUTER.index(victim) :][:1]

    def _goes_on(self, request: str, told: str) -> None:
        kernel = self.kernel
        reply = self._reply(request, told)
        if reply["status"] == "error":
            assert reply["evalue"], told
            assert "Traceback" not in reply["evalue"], f"{told}: {reply}"
        replies = [self._reply(kernel.client.execute(f"echo {n}"), told) for n in range(2)]
        assert replies[-1]["status"] == "ok", f"{told}: {reply['status']}, then {replies}"
        self.kernel.look()
        kernel.client.shutdown()
        assert kernel.is_gone(), f"{told}: left {kernel.left()}"

    def _reply(self, request: str, told: str) -> dict:
        end = time.monotonic() + ANSWERED_S
        while time.monotonic() < end:
            with contextlib.suppress(Exception):  # queue.Empty, where nothing came
                reply = self.kernel.client.get_shell_msg(timeout=1)
                if reply["parent_header"].get("msg_id") == request:
                    return reply["content"]
        raise AssertionError(f"{told}: no answer; the kernel is {state(self.kernel.supervisor)}")

    def _next_one_works(self, told: str) -> None:
        kernel = self._start()
        try:
            for code in ("%base busybox", FREEZE.format(self._chance.random()), "cat /d/5"):
                reply, _ = kernel.run(code)
                assert reply["status"] == "ok", f"{told}, then {code}: {reply}"
        finally:
            kernel.client.shutdown()
            kernel.server.wait(ANSWERED_S)
            kernel.close()
        argv = [sys.executable, "-m", "container_kernel", "store", "check", "--full"]
        env = environ(self._home, kernel.runtime_dir)
        done = subprocess.run(argv, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{told}: {done.stdout}{done.stderr}"
