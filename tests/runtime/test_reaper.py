"""Row 168: a start sweeps what dead processes left, and nothing that a living one has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from container_kernel.runtime import run_dir

DEAD = 50
HOLDER = """
import os, sys, time
from container_kernel.runtime import run_dir
folder, lock = run_dir.make({"XDG_RUNTIME_DIR": sys.argv[1]})
for kind in ("bundles/c1", "runtime/c1", "ipc/1", "rootfs/2"):
    (folder / kind).mkdir(parents=True)
(folder / "bundles/c1/config.json").write_text("{}")
for group in sys.argv[2:]:
    os.makedirs(f"{group}/container-kernel/{folder.name}/c1", exist_ok=True)
print(folder, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def runtime_dir(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path


def writable_cgroups():
    """Hierarchies of cgroup v1 where this user may make groups."""
    return [str(path) for path in Path("/sys/fs/cgroup").glob("pids") if os.access(path, os.W_OK)]


def groups_of(folder):
    return [*Path("/sys/fs/cgroup").glob(f"*/container-kernel/{folder.name}")]


def hold(runtime_dir):
    """A process with a run folder, as a kernel with one container has it."""
    argv = [sys.executable, "-c", HOLDER, str(runtime_dir), *writable_cgroups()]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ)
    return process, Path(process.stdout.readline().strip())


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_row_168_fifty_dead_are_reaped_and_one_that_lives_is_not(runtime_dir):
    living, kept = hold(runtime_dir)
    dead = []
    try:
        (runtime_dir / "else").mkdir(mode=0o700)
        for number in range(DEAD):
            # The first is a real process that was killed; the others are what it would have left.
            if number == 0:
                process, folder = hold(runtime_dir)
                end(process)
            else:
                folder, lock = run_dir.make({"XDG_RUNTIME_DIR": str(runtime_dir / "else")})
                (folder / "bundles/c1").mkdir(parents=True)
                os.close(lock)
                moved = kept.parent / folder.name
                folder.rename(moved)
                folder = moved
            dead.append(folder)
        assert all(folder.is_dir() for folder in dead)
        mine, lock = run_dir.make({"XDG_RUNTIME_DIR": str(runtime_dir)})
        assert sorted(kept.parent.iterdir()) == sorted([kept, mine])
        assert [group for folder in dead for group in groups_of(folder)] == []
        assert (kept / "bundles/c1/config.json").read_text() == "{}"
        assert len(groups_of(kept)) == len(writable_cgroups())
        os.close(lock)
        run_dir.sweep(mine)
    finally:
        end(living)
        run_dir.sweep(kept)
        for group in groups_of(kept):
            with suppress(OSError):
                group.rmdir()
    assert groups_of(kept) == []
