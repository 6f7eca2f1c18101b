"""SIGKILL at the n-th call that changes the disk, in every process of a build.

Calls are counted in each process and thread by itself, the OCI runtime's too. Every n has its case,
in a shuffled order. The next start heals what is left, nothing acknowledged is lost, and the build
comes to its end.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.soak.stores import Site, site

CASES, SAMPLE = 900, 3
CALLS = (
    "write,pwrite64,rename,renameat,renameat2,fsync,fdatasync,syncfs,link,linkat,symlink,unlink,"
    "unlinkat,rmdir,mkdir,mkdirat,mount,umount2,ftruncate,flock,utimensat,chmod,fchmod"
)
STRACE = ("strace", "-f", "-qq", "--seccomp-bpf")


def count_calls(place: Site) -> int:
    """How many calls the busiest thread of a build makes."""
    place.forget()
    log = place.folder / "calls"
    before = (*STRACE, "-o", str(log), "-e", f"trace={CALLS}")
    done = place.run("build", str(place.notebook), before=before)
    assert done.returncode == 0, done.stderr
    lines = (line.split(maxsplit=1) for line in log.read_text().splitlines())
    by_thread = collections.Counter(pid for pid, rest in lines if "resumed>" not in rest)
    return max(by_thread.values())


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    with site(in_memory=True) as place:
        points = count_calls(place)
        print(f"kill-points: {points} calls to be killed at", flush=True)

        assert points <= CASES, f"there are {points} calls"
        order = list(range(1, CASES + 1))  # one more or less does not change the order
        random.Random(CASES).shuffle(order)

        def case(number: int, chance: random.Random) -> None:
            kill(place, order[number])

        yield case


def kill(place: Site, point: int) -> None:
    place.forget()
    inject = f"inject={CALLS}:signal=KILL:when={point}"
    before = (*STRACE, "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject)
    done = place.run("build", str(place.notebook), before=before)
    place.check_after(done.stderr)
