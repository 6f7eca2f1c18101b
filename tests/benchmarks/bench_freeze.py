"""Freezing a layer: encode the tree and hash it, against GNU tar piped to ``openssl dgst``.

The tree is a real pip environment of about 20,000 files and 500 MB, and then one large file. What
lies below the layer is never looked at, so the size of the base has no part in it.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import Result, bound, compare, program, report

from container_kernel.oci.changeset import tree_digest
from container_kernel.oci.idmap import IdMap

PACKAGES = ("scikit-learn", "pandas", "matplotlib", "jupyterlab", "ipykernel")
LARGE_BYTES = 1 << 30
ROUNDS = 15
MIB = 1024**2


def digest(tree: Path) -> tuple[object, int]:
    return tree_digest(tree, idmap=IdMap.identity(), userxattr=False)


def ours(tree: Path) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        digest(tree)
        return time.perf_counter() - start

    return once


def tar_to_openssl(tree: Path) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        tar = subprocess.Popen(["tar", "-c", "-C", tree, "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["openssl", "dgst", "-sha256"], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True
        )
        tar.stdout.close()
        assert tar.wait() == 0
        return time.perf_counter() - start

    return once


def peak_mib(tree: Path) -> float:
    """The most memory a whole process needs that does nothing else."""
    done = subprocess.run(program(__file__, "--memory", str(tree)), capture_output=True, check=True)
    return float(done.stdout)


def results() -> Iterator[Result]:
    folder = Path(tempfile.mkdtemp(prefix="bench-freeze-"))
    try:
        environment, large = folder / "environment", folder / "large"
        install = [shutil.which("uv") or "uv", "pip", "install", "--quiet", "--link-mode", "copy"]
        subprocess.run([*install, "--target", environment, *PACKAGES], check=True)
        large.mkdir()
        with (large / "file").open("wb") as file:
            for _ in range(LARGE_BYTES // MIB):
                file.write(os.urandom(MIB))
        files = sum(len(names) for _, _, names in os.walk(environment))
        size = digest(environment)[1] / 1e6
        yield compare(
            "freeze a pip environment, against tar | openssl",
            ours(environment),
            tar_to_openssl(environment),
            at_most=1.25,
            rounds=ROUNDS,
            note=f"s, {files} files, {size:.0f} MB",
        )
        yield compare(
            "freeze one large file, against tar | openssl",
            ours(large),
            tar_to_openssl(large),
            at_most=1.1,
            rounds=ROUNDS,
            note=f"s, {LARGE_BYTES // MIB} MiB",
        )
        memory = [peak_mib(environment) for _ in range(5)]
        yield bound("freeze a pip environment, memory", memory, at_most=64, note="MiB, the process")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        digest(Path(sys.argv[2]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        report(results())
