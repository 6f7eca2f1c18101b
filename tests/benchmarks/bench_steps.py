"""Twenty steps of ``echo``: from nothing and all cached, against the builders people use."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import peers
from kernels import OURS, Kernel
from measure import Result, bound, compare, report, skipped
from prepared import BASE, PLACE, command, image, notebook

STEPS = 20
FIFTY = 50
ROUNDS = 12
MILLISECOND = 1e-3
_numbers = itertools.count(int(time.time() * 1000))


def rootfs() -> Path:
    """The base that everybody starts from, as a folder."""
    folder = PLACE / "rootfs"
    if not folder.exists():
        archive = PLACE / "base.tar"
        command("image", "save", "bench-base", "-o", str(archive))
        with tempfile.TemporaryDirectory(dir=PLACE) as place:
            peers.timed(["skopeo", "copy", f"oci-archive:{archive}", f"oci:{place}/oci:base"])
            peers.timed(["umoci", "raw", "unpack", "--image", f"{place}/oci:base", str(folder)])
    return folder


def dockerfile(base: str, word: object) -> str:
    return f"FROM {base}\n" + "".join(f"RUN echo {word} {n}\n" for n in range(STEPS))


def cells(word: object) -> list[str]:
    return [f"%%build\necho {word} {n}" for n in range(STEPS)]


def ours(word: object | None = None) -> float:
    """The whole command, as the peers' commands are; a word that is new makes all steps new."""
    path = notebook("steps", *BASE, *cells(next(_numbers) if word is None else word))
    start = time.perf_counter()
    command("build", str(path), "--json")
    return time.perf_counter() - start


def in_kernel(kernel: Kernel) -> float:
    """Twenty cells of a notebook that is open, all new: what a user of the kernel waits for."""
    new = cells(next(_numbers))
    start = time.perf_counter()
    asked = [
        kernel.send(cell, cell_id=f"cell-{number}") for number, cell in enumerate(new, start=1)
    ]
    for msg_id in asked:
        kernel.reply(msg_id)
    return time.perf_counter() - start


def against(
    name: str, start: AbstractContextManager[peers.Docker | peers.Buildah], at_most: float
) -> Iterator[Result]:
    goal = f"{STEPS} steps of echo"
    try:
        with (
            start as peer,
            tempfile.TemporaryDirectory() as place,
            Kernel(*OURS, cwd=PLACE) as kernel,
        ):
            folder = Path(place)
            kernel.execute(BASE[0], cell_id="cell-0")
            yield compare(
                f"{goal} in an open notebook, against {name}",
                lambda: in_kernel(kernel),
                lambda: peer.build(dockerfile(peer.base, next(_numbers)), folder, cached=False),
                at_most=at_most,
                rounds=ROUNDS if name == "docker BuildKit" else ROUNDS // 2,
                note="s, cells of a running kernel",
            )
            yield compare(
                f"{goal}, against {name}",
                ours,
                lambda: peer.build(dockerfile(peer.base, next(_numbers)), folder, cached=False),
                at_most=at_most,
                rounds=ROUNDS if name == "docker BuildKit" else ROUNDS // 2,
                note="s, whole command",
            )
            yield compare(
                f"{goal}, all cached, against {name}",
                lambda: ours("same"),
                lambda: peer.build(dockerfile(peer.base, "same"), folder),
                at_most=1,
                rounds=ROUNDS,
                note="s, whole command",
            )
    except peers.NotHere as error:
        yield skipped(f"{goal}, against {name}", str(error), target=f"<= {at_most:g}")


def cached_in_kernel() -> Iterator[Result]:
    """The requests go out at once, so that what is timed is us and not the client."""
    with Kernel(*OURS, cwd=PLACE) as kernel:
        for number, cell in enumerate([*BASE, *cells("same")]):
            kernel.execute(cell, cell_id=f"cell-{number}")
        times = []
        for _ in range(30):
            start = time.perf_counter()
            asked = [
                kernel.send(cell, cell_id=f"cell-{number}")
                for number, cell in enumerate(cells("same"), start=1)
            ]
            for msg_id in asked:
                kernel.reply(msg_id)
            times.append(time.perf_counter() - start)
    yield bound(
        f"{STEPS} cached cells through the kernel", times, at_most=20 * MILLISECOND, note="s"
    )


def cached_by_command() -> Iterator[Result]:
    """What a cell costs that is built: a notebook of fifty, less one of a single cell."""
    one, fifty = (
        notebook(name, *BASE, *[f"%%build\necho same {n}" for n in range(number)])
        for name, number in (("one", 1), ("fifty", FIFTY))
    )

    def seconds(path: Path) -> float:
        start = time.perf_counter()
        command("build", str(path), "--json")
        return time.perf_counter() - start

    seconds(fifty)
    times = [seconds(fifty) - seconds(one) for _ in range(30)]
    yield bound(
        f"{FIFTY} cached cells of a build, beyond the first",
        times,
        at_most=25 * MILLISECOND,
        note="s",
    )


def results() -> Iterator[Result]:
    image("base", BASE)
    command("build", str(notebook("steps", *BASE, *cells("same"))))
    yield from cached_in_kernel()
    yield from cached_by_command()
    try:
        folder = rootfs()
    except (OSError, RuntimeError) as error:
        yield skipped("against peers", f"no common base: {error}")
        return
    yield from against("docker BuildKit", peers.docker(folder), 1 / 3)
    yield from against("buildah", peers.buildah(folder), 1 / 10)


if __name__ == "__main__":
    report(results())
