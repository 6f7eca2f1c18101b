"""SIGKILL at every call of a collector that changes the disk.

What is named can be read afterwards, nothing is damaged, and the next collector takes what this
one did not come to.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from container_kernel.store.check import check
from container_kernel.store.collect import collect
from container_kernel.store.store import Store
from tests.soak import kills
from tests.soak.stores import memory
from tests.soak.sweep_collect_races import Worker, open_store

CASES, SAMPLE = 200, 3
CALLS = (
    "write,pwrite64,rename,fsync,fdatasync,link,unlink,unlinkat,rmdir,mkdir,ftruncate,flock,"
    "utimensat"
)
_OLD = 1.0  # seconds since 1970
_COLLECT = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from container_kernel.store.collect import collect
from tests.soak.sweep_collect_races import open_store
collect(open_store(Path(sys.argv[1])), older_than_s=1e-6)
"""


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    with tempfile.TemporaryDirectory(prefix="ck-collect-", dir=memory()) as name:
        folder = Path(name)
        fill(folder / "full")
        log = folder / "calls"
        run(folder, *kills.noting(CALLS, log))
        points, misses = kills.points(log), kills.Misses()
        print(f"kill-collect: {len(points)} calls to be killed at", flush=True)
        assert len(points) <= CASES, f"there are {len(points)} calls"

        def case(number: int, chance: random.Random) -> None:
            kill(folder, points[number % len(points)], misses)

        yield case


def fill(home: Path) -> None:
    """A store with images that are named, cached, or neither, and old small files of all kinds."""
    worker = Worker(home, 0, random.Random(1))
    for number in range(8):
        worker.build()
        if number % 2:
            worker.name()
        worker.download()
    worker.store.cache_folder("pip")
    worker.store.close()
    for name in ("journal/a.json", "packed/b.zstd", "history/c.json", "downloads/inputs/d"):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (_OLD, _OLD))


def run(folder: Path, *before: str) -> None:
    """Collect in a copy of the store, in a process of its own."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run(["cp", "-a", str(folder / "full"), str(home)], check=True)
    argv = [*before, sys.executable, "-I", "-c", _COLLECT, str(home)]
    subprocess.run(argv, check=False, capture_output=True, timeout=60)


def kill(folder: Path, point: kills.Point, misses: kills.Misses) -> None:
    """Kill a collector there; then nothing that is needed is gone, and the next one finishes."""
    log = folder / "calls"
    run(folder, *kills.killing(point, log))
    misses.note(point, log)
    store = open_store(folder / "home")
    try:
        check_whole(store)
        collect(store, older_than_s=1e-6)
        check_whole(store)
        assert collect(store, older_than_s=1e-6).victims == ()
        assert not list(store.snapshots.trash.iterdir())
    finally:
        store.close()


def check_whole(store: Store) -> None:
    found = [one for one in check(store, full=True) if one.weight == "damage"]
    assert not found, found
    names = store.tags.list()
    assert names
    for digest in names.values():
        config = store.image_config(store.manifest(digest))
        assert store.snapshots.chain(store.image_chain(config))
