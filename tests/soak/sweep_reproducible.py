"""Real notebooks of many kinds, built from nothing again and again: the same bytes each time.

Each case builds one of ``kinds/`` twice, each time in a store of its own, with another OCI runtime,
umask, locale, time zone, folder and number of processors. As root and as an ordinary user the
digests are the same too: they are printed, to be compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = sorted((Path(__file__).parent / "kinds").glob("*.ipynb"))
CASES = 3 * len(KINDS)
SAMPLE = 1
TIMEOUT_S = 1800


@contextlib.contextmanager
def opened():
    folder = Path(tempfile.mkdtemp(prefix="ck-reproducible-"))
    try:
        yield lambda number, chance: _case(folder, number, chance)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _case(folder, number, chance):
    notebook = KINDS[number % len(KINDS)]
    found = [_build(folder, notebook, chance) for _ in range(2)]
    print(f"{notebook.stem}: {found[0]}", flush=True)
    assert found[0] == found[1]


def _build(folder, notebook, chance):
    place = Path(tempfile.mkdtemp(dir=folder))
    here = place / chance.choice(["a", "ö ü", "deep/er/still"])
    here.mkdir(parents=True)
    shutil.copyfile(notebook, here / "notebook.ipynb")
    mask = chance.choice([0o022, 0o077, 0o002])
    cores = set(list(os.sched_getaffinity(0))[: chance.choice([1, 2])])
    env = {
        **os.environ,
        "CONTAINER_KERNEL_HOME": str(place / "home"),
        "CONTAINER_KERNEL_RUNTIME": chance.choice(["crun", "runc"]),
        "TZ": chance.choice(["UTC", "Pacific/Kiritimati", "America/St_Johns"]),
        "LC_ALL": chance.choice(["C", "C.UTF-8", "tr_TR.UTF-8"]),
    }

    def alter():
        os.umask(mask)
        os.sched_setaffinity(0, cores)

    argv = [sys.executable, "-m", "container_kernel", "build", "notebook.ipynb", "--json"]
    done = subprocess.run(
        argv, cwd=here, env=env, preexec_fn=alter, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(place, ignore_errors=True)
    stages = json.loads(done.stdout)["stages"]
    return {name: stage["digest"] for name, stage in stages.items()}
