"""A fresh container that runs ``/bin/true``, from a warm Python process.

Ours is all of it: a root file system mounted, the container made, waited for and cleared away. The
bare OCI runtime gets the same ``config.json`` on a root file system that is mounted already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import peers
from bench_steps import rootfs
from measure import Result, compare, program, report, skipped
from prepared import BASE, PLACE, image, use_own_store

COMMAND = ("/bin/true",)


class Inside:
    """This file, run again inside namespaces, where containers are started from."""

    def __init__(self) -> None:
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(program(__file__, "--inside"), **pipe)  # type: ignore[call-overload]
        self.runtime = self._process.stdout.readline().strip()

    def measure(self, what: str) -> Callable[[], float]:
        def once() -> float:
            print(what, file=self._process.stdin, flush=True)
            return float(self._process.stdout.readline())

        return once

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer ``ours``, ``unlimited`` and ``bare`` with the seconds that one container took."""
    from container_kernel.runtime import namespace

    use_own_store()
    place = namespace.enter(os.environ)
    from container_kernel import config
    from container_kernel.runtime.limits import Limits
    from container_kernel.runtime.wish import Wish
    from container_kernel.workbench import Workbench

    bench = Workbench(config.load(), place, PLACE, parse=lambda _: None)
    base = bench.find_image("bench-base")

    def ours(wish: Wish | None = None) -> None:
        live = bench.fresh(base, wish)
        exit_ = live.start(COMMAND, cwd="/").wait()
        live.close()
        assert exit_ is not None
        assert exit_.status == 0

    # A container that stays, whose bundle the bare runtime is given.
    stays = bench.fresh(base)
    stays.start(COMMAND, cwd="/").wait()
    runtime, bundle = bench.host.runtime.path, place.run_dir / "bare"
    (made,) = (place.run_dir / "bundles").glob("*/config.json")
    bundle.mkdir()
    spec = json.loads(made.read_text()) | {"annotations": {}}  # what crun has compiled for us
    if "cgroupsPath" in spec["linux"]:
        spec["linux"]["cgroupsPath"] += "-bare"
    (bundle / "config.json").write_text(json.dumps(spec))
    command = [str(runtime), "--root", str(place.run_dir / "bare-state")]
    if place.is_rootless and runtime.name == "crun" and "cgroupsPath" not in spec["linux"]:
        command.append("--cgroup-manager=disabled")

    def bare() -> None:
        subprocess.run(
            [*command, "run", "--bundle", str(bundle), "bare"], stdin=subprocess.DEVNULL, check=True
        )

    def unlimited() -> None:
        ours(Wish(limits=Limits()))

    kinds = {"ours": ours, "unlimited": unlimited, "bare": bare}
    print(runtime.name, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        kinds[line.strip()]()
        print(time.perf_counter() - start, flush=True)
    stays.close()
    bench.close()
    shutil.rmtree(bundle)


def results() -> Iterator[Result]:
    image("base", BASE)
    inside = Inside()
    ours = inside.measure("ours")
    yield compare(
        f"fresh container, against bare {inside.runtime}",
        ours,
        inside.measure("bare"),
        at_most=1.3,
        rounds=100,
        note="s, /bin/true",
    )
    yield compare(
        "fresh container with limits, against none",
        ours,
        inside.measure("unlimited"),
        at_most=1.03,
        rounds=100,
        note="s, /bin/true; about 1 ms may be added",
    )
    goal = "fresh container, against docker run"
    try:
        with peers.docker(rootfs()) as docker:
            yield compare(
                goal,
                ours,
                lambda: docker.run(*COMMAND),
                at_most=0.1,
                rounds=20,
                note="s, /bin/true",
            )
    except peers.NotHere as error:
        yield skipped(goal, str(error), target="<= 0.1")
    inside.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--inside"]:
        serve()
    else:
        report(results())
