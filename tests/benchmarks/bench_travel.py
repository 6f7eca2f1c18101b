"""Images that travel: import, pull, push, packing and slugs, against podman and gzip.

The image has four gzip layers of real files, some 8,000 of them. Every round begins with an empty
store of its own on both sides; the registry is Debian's, on loopback. Stores are removed at the
very end: ext4 without a journal makes whoever creates files after a big removal pay for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from measure import Result, bound, compare, report
from peers import timed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from container_kernel.oci.idmap import IdMap  # noqa: E402
from container_kernel.oci.reference import Reference  # noqa: E402
from container_kernel.store.store import Store  # noqa: E402
from container_kernel.transfer.load import load  # noqa: E402
from container_kernel.transfer.packed import _packers  # noqa: E402
from container_kernel.transfer.push import push  # noqa: E402
from container_kernel.transfer.registry_http import Access  # noqa: E402
from tests.transfer import servers  # noqa: E402
from tests.transfer.layouts import Layout, layer_tar  # noqa: E402

ROUNDS = 7
PARTS = (("jupyterlab", "notebook"), ("matplotlib", "numpy"), ("mypy", "nbconvert"), ("IPython",))


class Place:
    """The image as files, and fresh stores for both sides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        site = Path(json.__file__).parents[1] / "site-packages"
        site = next(Path(p) for p in sys.path if (Path(p) / "mypy").is_dir()) or site
        busybox = layer_tar({"bin/": b"", "bin/sh": Path("/bin/busybox").read_bytes()})
        self.tars = [busybox, *(self._tar(site, names) for names in PARTS)]
        self.archive = Layout(*self.tars, compress=True).archive(folder / "image.tar")

    def _tar(self, site: Path, names: tuple[str, ...]) -> bytes:
        path = self.folder / "part.tar"
        with tarfile.open(path, "w") as tar:
            for name in names:
                tar.add(site / name, f"opt/{name}")
        return path.read_bytes()

    def fresh(self) -> Path:
        self._count += 1
        return self.folder / str(self._count)

    def ours(self, *words: str) -> Callable[[], float]:
        """A command of ours on an empty store."""

        def once() -> float:
            home = self.fresh()
            environ = os.environ | {"CONTAINER_KERNEL_HOME": str(home)}
            argv = [sys.executable, "-m", "container_kernel", *words]
            return timed(argv, env=environ, cwd=self.folder)

        return once

    def podman(self, *words: str) -> Callable[[], float]:
        """A command of podman's on an empty store."""

        def once() -> float:
            home = self.fresh()
            store = ["--root", f"{home}/root", "--runroot", f"{home}/run"]
            took = timed(["podman", *store, "--storage-driver", "overlay", *words])
            subprocess.run(["umount", f"{home}/root/overlay"], capture_output=True)
            return took

        return once


def packing(tar: Path) -> tuple[Callable[[], float], Callable[[], float], dict[str, int]]:
    sizes: dict[str, int] = {}

    def ours() -> float:
        start = time.perf_counter()
        pack, finish = _packers("zstd")
        count = 0
        with tar.open("rb") as file:
            while piece := file.read(1 << 20):
                count += len(pack(piece))
        sizes["ours"] = count + len(finish())
        return time.perf_counter() - start

    def gzip() -> float:
        start = time.perf_counter()
        done = subprocess.run(["gzip", "-6", "-c", tar], capture_output=True, check=True)
        sizes["gzip"] = len(done.stdout)
        return time.perf_counter() - start

    return ours, gzip, sizes


def known_again(place: Place) -> Iterator[Result]:
    store = Store(place.fresh(), IdMap.identity(), userxattr=False)
    load(place.archive, store)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        load(place.archive, store)
        took.append((time.perf_counter() - start) * 1000)
    yield bound("import an image that is known", took, at_most=10.0, note="ms, 20 times")
    store.close()


def second_push(place: Place, host: str) -> Iterator[Result]:
    with closing(servers.Line(host)) as line:
        store = Store(place.fresh(), IdMap.identity(), userxattr=False)
        ((_, first),) = load(place.archive, store)
        push(first, Reference.parse(f"{line.host}/bench/x:1"), store, Access())
        changed = layer_tar({"opt/one": os.urandom(100_000)})
        top = Layout(*place.tars, changed, compress=True).archive(place.folder / "second.tar")
        ((_, second),) = load(top, store)
        line.reset()
        pushed = push(second, Reference.parse(f"{line.host}/bench/x:2"), store, Access())
        layer = next(blob for blob in pushed.blobs if blob.fate == "sent")
        over = (line.sent - layer.size) / 1024
        note = f"KiB more than the changed layer of {layer.size} bytes"
        yield bound("second push, one layer changed", [over], at_most=64.0, note=note)
        store.close()


def results() -> Iterator[Result]:
    folder = Path(tempfile.mkdtemp(prefix="bench-travel-"))
    try:
        place = Place(folder)
        note = f"s, {len(place.tars)} layers, {place.archive.stat().st_size / 1e6:.0f} MB packed"
        yield from known_again(place)
        with servers.registry(folder / "registry") as host:
            yield from second_push(place, host)
            if shutil.which("podman"):
                yield compare(
                    "import a gzip archive, against podman load",
                    place.ours("image", "load", "-i", str(place.archive)),
                    place.podman("load", "--quiet", "-i", str(place.archive)),
                    at_most=0.5, rounds=ROUNDS, note=note,
                )  # fmt: skip
                name = f"{host}/bench/x:1"
                yield compare(
                    "pull from loopback, against podman pull",
                    place.ours("image", "pull", name),
                    place.podman("pull", "--quiet", "--tls-verify=false", name),
                    at_most=1 / 1.5, rounds=ROUNDS, note=note,
                )  # fmt: skip
        big = folder / "big.tar"
        big.write_bytes(b"".join(place.tars))
        ours, gzip, sizes = packing(big)
        packed = compare(
            "pack for a push, against gzip -6", ours, gzip, at_most=1 / 3, rounds=3, note="s"
        )
        share = sizes["ours"] / sizes["gzip"]
        yield packed
        yield bound("size packed, of gzip -6's", [share], at_most=1.0, note="ratio")
        yield from slugs(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def slugs(place: Place) -> Iterator[Result]:
    path = place.folder / "image.sqfs"
    environ = os.environ | {"CONTAINER_KERNEL_HOME": str(place.fresh())}
    ours = [sys.executable, "-m", "container_kernel"]
    timed([*ours, "image", "load", "-i", str(place.archive), "--as", "x"], env=environ)
    save = ["image", "save", "x", "--format", "sqfs", "-o", str(path)]
    timed([*ours, *save], env=environ)
    true = ("--", "/bin/sh", "-c", ":")
    yield compare(
        "a slug to its first exec, against unpacking the archive and exec",
        place.ours("exec", "--image", str(path), *true),
        place.ours("exec", "--image", str(place.archive), *true),
        at_most=0.2, rounds=ROUNDS, note="s, with the start of the command",
    )  # fmt: skip


if __name__ == "__main__":
    report(results())
