"""A frozen layer of 500 MB slides under a running ipykernel: from the call until it goes on.

The layer is 480 files of a megabyte, and 20,000 small ones beside a folder, in a folder that is
there before: it has to be listed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from measure import Result, bound, program, report
from prepared import IPYKERNEL, PLACE, image, use_own_store

ROUNDS = 15
AT_MOST_S = 0.05
START_S = 2.0
SESSION = ("python3", "-m", "ipykernel_launcher")
LARGE = """\
%%build --net none
mkdir /opt/large
for i in $(seq 480); do head -c 1000000 /dev/urandom > /opt/large/$i; done
mkdir /usr/share/large
seq 20000 | split -l 1 -a 4 - /usr/share/small
"""


def serve() -> None:
    """Print the seconds of each round."""
    from container_kernel.runtime import namespace

    use_own_store()
    place = namespace.enter(os.environ)
    from container_kernel import config
    from container_kernel.workbench import Workbench

    bench = Workbench(config.load(), place, PLACE, parse=lambda _: None)
    before, after = bench.find_image("bench-ipykernel"), bench.find_image("bench-large")
    for _ in range(ROUNDS):
        live = bench.fresh(before)
        container = live.start(SESSION)
        time.sleep(START_S)  # it has imported, and opened its history
        start = time.perf_counter()
        live.rebase(after.chain_id, after.config)
        print(time.perf_counter() - start, flush=True)
        assert container.poll() is None
        live.close()
    bench.close()


def results() -> Iterator[Result]:
    image("ipykernel", IPYKERNEL)
    image("large", (*IPYKERNEL, LARGE))
    done = subprocess.run(program(__file__, "--inside"), stdout=subprocess.PIPE, check=True)
    yield bound(
        "a 500 MB layer slides under a live session",
        [float(line) for line in done.stdout.split()],
        at_most=AT_MOST_S,
        note=f"s, ipykernel, {ROUNDS} rounds",
    )


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--inside"] else report(results())
