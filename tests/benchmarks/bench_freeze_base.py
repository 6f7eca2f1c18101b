"""The same step of 10,000 small files, frozen on a tiny base and on one of more than two gigabytes.

Timed is what comes when the step has ended: its tree read and hashed, and its layer on disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

from measure import Result, judge, program, report
from prepared import PLACE, PYTHON, image, use_own_store

ROUNDS = 12
FILES = 10_000
BASES = ("tiny", "big")
AT_MOST = 1.1
BIG = """\
%%build --net none
mkdir /opt/big
head -c 100000000 /dev/urandom > /opt/big/0
for i in $(seq 21); do cp /opt/big/0 /opt/big/$i; done
seq 50000 | split -l 1 -a 4 - /opt/big/small
"""


def write(folder: str) -> None:
    """What the step does; no two rounds are the same, or there would be nothing to freeze."""
    word = os.urandom(8).hex()
    for number in range(FILES):
        path = f"{folder}/{number % 100}"
        if number < 100:
            os.makedirs(path)
        with open(f"{path}/{number}", "w") as file:
            file.write(f"{word} {number}\n")


def serve() -> None:
    """Print the seconds of each round, the two bases in turn."""
    from container_kernel.runtime import namespace

    use_own_store()
    place = namespace.enter(os.environ)
    from container_kernel import config
    from container_kernel.build.execute import freeze
    from container_kernel.oci.changeset import Clamp
    from container_kernel.runtime.rootfs import Rootfs
    from container_kernel.workbench import Workbench

    bench = Workbench(config.load(), place, PLACE, parse=lambda _: None)

    def once(base: str) -> float:
        started = time.time()
        parent = bench.find_image(f"bench-{base}").chain_id
        rootfs = Rootfs(bench.host, bench.store, parent)
        write(f"{rootfs.path}/data")
        rootfs.unmount()
        os.sync()  # what others have written is not ours to wait for
        start = time.perf_counter()
        layer = freeze(bench.store, rootfs.active, "%%build", Clamp(started, 0))
        took = time.perf_counter() - start
        shutil.rmtree(layer.path.parent)
        return took

    for base in BASES:
        once(base)
    for number in range(ROUNDS):
        took = {base: once(base) for base in (BASES if number % 2 else reversed(BASES))}
        print(took["big"], took["tiny"], flush=True)
    bench.close()


def pairs() -> list[tuple[float, float]]:
    done = subprocess.run(program(__file__, "--inside"), stdout=subprocess.PIPE, check=True)
    lines = done.stdout.decode().splitlines()
    return [(float(big), float(tiny)) for big, tiny in (line.split() for line in lines)]


def results() -> Iterator[Result]:
    image("tiny", ("%base busybox",))
    image("big", (*PYTHON, BIG))
    yield judge(
        f"freeze {FILES} small files on a big base, against a tiny one",
        pairs(),
        at_most=AT_MOST,
        note="s, 2.2 GB and 50,000 files below",
    )


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--inside"] else report(results())
