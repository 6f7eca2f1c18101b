"""SIGKILL at every call that changes the disk, in every process of an import, the boxes too.

A layer is either whole or not there, whoever was killed; the next import comes to its end, and then
every tree is what its blob unpacks to and nothing is left of the first try.
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

from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap
from container_kernel.store.check import check
from container_kernel.store.reach import Reach
from container_kernel.store.store import Store
from container_kernel.transfer.load import load
from container_kernel.transfer.restore import examine_imported
from tests.soak import kills
from tests.soak.stores import memory
from tests.transfer.layouts import Layout, layer_tar

CASES, SAMPLE = 200, 2
CALLS = (
    "write,pwrite64,rename,renameat,fsync,fdatasync,syncfs,link,linkat,symlinkat,unlink,unlinkat,"
    "rmdir,mkdir,mkdirat,mknodat,ftruncate,flock,utimensat,fchmod,fchown,fchownat,setxattr,fsetxattr"
)
_LOAD = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from container_kernel.transfer.load import load
from tests.soak.sweep_kill_imports import open_store
load(Path(sys.argv[2]), open_store(Path(sys.argv[1])))
"""


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    with tempfile.TemporaryDirectory(prefix="ck-import-", dir=memory()) as name:
        folder = Path(name)
        image = image_in(folder / "i.tar")
        log = folder / "calls"
        assert run(folder, *kills.noting(CALLS, log)) == 0
        points, misses = kills.points(log), kills.Misses()
        print(f"kill-imports: {len(points)} calls to be killed at", flush=True)
        assert len(points) <= CASES, f"there are {len(points)} calls"

        def case(number: int, chance: random.Random) -> None:
            kill(folder, points[number % len(points)], misses, image)

        yield case


def open_store(home: Path) -> Store:
    return Store(home, IdMap.identity(), userxattr=True)


def image_in(path: Path) -> Digest:
    """An archive of an image of three layers that stand on each other."""
    files = {f"d/{number}": os.urandom(number * 500) for number in range(9)}
    middle = {"d/.wh.1": b"", "d/.wh..wh..opq": b"", "d/new": b"new", "e/f/": b""}
    layers = (layer_tar({"d/": b"", **files}), layer_tar(middle), layer_tar({"e/f/g": b"g" * 9999}))
    layout = Layout(*layers, compress=True)
    layout.archive(path)
    return Digest(layout.descriptor["digest"])


def run(folder: Path, *before: str) -> int:
    """Import into a store that has nothing, in a process of its own."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    argv = [*before, sys.executable, "-I", "-c", _LOAD, str(home), str(folder / "i.tar")]
    return subprocess.run(argv, check=False, capture_output=True, timeout=60).returncode


def kill(folder: Path, point: kills.Point, misses: kills.Misses, image: Digest) -> None:
    """Kill whoever comes to that call; nothing is half there, and the next one finishes."""
    log = folder / "calls"
    run(folder, *kills.killing(point, log))
    misses.note(point, log)
    store = open_store(folder / "home")
    try:
        assert damages(store) == []
        assert [digest for _, digest in load(folder / "i.tar", store)] == [image]
        assert damages(store) == []
        for name in ("active", "trash", "content/ingest", "quarantine"):
            left = folder / "home" / name
            assert not left.exists() or not os.listdir(left), name
    finally:
        store.close()


def damages(store: Store) -> list:
    """What the full check finds, trees compared with what their blobs unpack to."""
    compare = examine_imported(store, Reach(store))
    found = check(store, full=True, imported=compare)
    return [one for one in found if one.damage not in ("unreferenced", "unverifiable")]
