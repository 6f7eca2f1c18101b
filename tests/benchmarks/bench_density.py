"""What one more idle kernel in a container takes of the memory, beside podman with ipykernel.

Kernels are started one after the other, each in a session of its own that has run one cell. What
counts is the proportional set size (PSS, what several share counted once) of all processes that
came with them: of ours the outer kernel's and the container's, of podman's its monitor and the
container's. The marginal cost is by how much the sum grows from one reading to the next, after the
first ones. ``KERNELS=10`` takes fewer.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from kernels import OURS, Kernel
from measure import Result, judge, report, skipped
from peers import NotHere, timed
from prepared import IPYKERNEL, PYTHON, command, image

KERNELS = int(os.environ.get("KERNELS", "50"))
STEPS = 10
"""Readings; the first two are not compared."""
HOST_MIB = 16 * 1024
IDLE_S = 1.0
IPYKERNEL_INSIDE = "python3 -m ipykernel_launcher -f"


def tree(pids: Sequence[int]) -> list[int]:
    """Processes and their descendants."""
    found = [*pids]
    for one in found:
        with suppress(OSError):
            text = Path(f"/proc/{one}/task/{one}/children").read_text()
            found += map(int, text.split())
    return found


def pss_mib(pids: Sequence[int]) -> float:
    kib = 0
    for one in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def run(kernel: Kernel, code: str) -> None:
    """A cell, without its outputs: the first may be over before they are subscribed to."""
    kernel.reply(kernel.send(code))


def readings(start: Callable[[], Kernel], members: Callable[[Kernel], list[int]]) -> list[float]:
    """MiB of all, each time another part of them has been started and left alone."""
    found: list[float] = []
    with ExitStack() as stack:
        kernels: list[Kernel] = []
        for _ in range(STEPS):
            for _ in range(KERNELS // STEPS):
                kernels.append(stack.enter_context(start()))
                run(kernels[-1], "1 + 1")
            time.sleep(IDLE_S)
            found.append(pss_mib([pid for kernel in kernels for pid in members(kernel)]))
    return found


def marginal(found: list[float]) -> list[float]:
    """What each kernel more took, reading by reading."""
    each = KERNELS // STEPS
    return [(after - before) / each for before, after in pairwise(found[1:])]


def fit(found: list[float]) -> int:
    """How many fit in 16 GiB that nothing else needs."""
    one = statistics.median(marginal(found))
    return int((HOST_MIB - found[-1] + KERNELS * one) / one)


def ours(tag: str, **settings: float) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "container_kernel_config.json"
        if settings:
            file.write_text(json.dumps({"ContainerKernel": settings}))

        def start() -> Kernel:
            kernel = Kernel(*OURS, JUPYTER_CONFIG_DIR=folder)
            run(kernel, f"%base {tag}")
            return kernel

        return readings(start, lambda kernel: tree([kernel.process.pid]))


@contextmanager
def podman(tag: str) -> Iterator[list[str]]:
    """The beginning of a podman command line, with a storage that holds the image ``tag``.

    Raises:
        NotHere: it is not installed, or does not run here.
    """
    program = shutil.which("podman")
    if program is None:
        raise NotHere("podman is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-podman-", ignore_cleanup_errors=True) as place:
        argv = [program, "--root", f"{place}/root", "--runroot", f"{place}/runroot"]
        argv += ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        command("image", "save", tag, "-o", f"{place}/image.tar")
        try:
            timed([*argv, "load", "-i", f"{place}/image.tar"])
            yield argv
        except RuntimeError as error:
            raise NotHere(f"podman does not work here: {error}") from error
        finally:
            subprocess.run([*argv, "rm", "--all", "--force"], capture_output=True, check=False)


def of_podman(argv: Sequence[str]) -> list[float]:
    """The kernels are spoken to over the host's loopback; only the monitors stay beside them."""
    named = subprocess.run([*argv, "images", "-q"], capture_output=True, text=True, check=True)
    flags = (
        "--rm --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --network host --log-driver none"
    )
    script = (
        f'd=$(dirname "$1"); i=$({" ".join(argv)} run -d {flags} -v "$d:$d" {named.stdout.strip()}'
        f' {IPYKERNEL_INSIDE} "$1") && {" ".join(argv)} inspect -f "{{{{.State.ConmonPid}}}}" $i'
        ' > "$d/pid" && exec tail --pid=$(cat "$d/pid") -f /dev/null'
    )

    def members(kernel: Kernel) -> list[int]:
        return tree([int((kernel.folder / "pid").read_text())])

    return readings(lambda: Kernel("sh", "-c", script, "sh", "{connection_file}"), members)


def compared(goal: str, found: list[float], peer: list[float]) -> Result:
    pairs = list(zip(marginal(found), marginal(peer), strict=True))
    note = f"MiB PSS; of {KERNELS} measured; in 16 GiB fit {fit(found)} against {fit(peer)}"
    return judge(goal, pairs, at_most=1, note=note)


def results() -> Iterator[Result]:
    agent_tag, tag = image("python", PYTHON), image("ipykernel", IPYKERNEL)
    agent = ours(agent_tag)
    # With a file of settings in both, which takes 4 MiB to read.
    still, awake = (ours(agent_tag, idle_freeze=after_s) for after_s in (IDLE_S / 4, 3600))
    yield compared("idle agent kernel, standing still", still, awake)
    ipykernel = ours(tag)
    goals = "idle agent kernel", "idle ipykernel"
    try:
        with podman(tag) as argv:
            peer = of_podman(argv)
    except NotHere as error:
        yield from (skipped(goal, str(error)) for goal in goals)
        return
    for goal, found in zip(goals, (agent, ipykernel), strict=True):
        yield compared(f"{goal}, against podman with ipykernel", found, peer)


if __name__ == "__main__":
    report(results())
