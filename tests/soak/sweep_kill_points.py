"""SIGKILL at every call that changes the disk, in every process of a build.

Calls are counted in each process and thread by itself, the OCI runtime's too. Each has its case, in
a shuffled order. The next start heals what is left, nothing acknowledged is lost, and the build
comes to its end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.soak import kills
from tests.soak.stores import Site, site

CASES, SAMPLE = 1600, 2
CALLS = (
    "write,pwrite64,rename,renameat,renameat2,fsync,fdatasync,syncfs,link,linkat,symlink,unlink,"
    "unlinkat,rmdir,mkdir,mkdirat,mount,umount2,ftruncate,flock,utimensat,chmod,fchmod"
)


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    misses = kills.Misses()
    with site(in_memory=True) as place:
        points = all_points(place)
        print(f"kill-points: {len(points)} calls to be killed at", flush=True)
        assert len(points) <= CASES, f"there are {len(points)} calls"

        def case(number: int, chance: random.Random) -> None:
            place.forget()
            point, log = points[number % len(points)], place.folder / "calls"
            before = kills.killing(point, log)
            said = place.run("build", str(place.notebook), before=before).stderr
            misses.note(point, log)
            place.check_after(said)

        yield case


def all_points(place: Site) -> list[kills.Point]:
    """Every call of a build."""
    place.forget()
    log = place.folder / "calls"
    done = place.run("build", str(place.notebook), before=kills.noting(CALLS, log))
    assert done.returncode == 0, done.stderr
    return kills.points(log)
