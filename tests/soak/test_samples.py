"""A few cases of each sweep, so that none rots; and what their runner promises."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SWEEPS = sorted(path.stem.removeprefix("sweep_") for path in HERE.glob("sweep_*.py"))


def soak(*arguments, folder=HERE):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(folder / "run.py"), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.privileged
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sample_of_the_sweep_goes_well(name):
    done = soak(name.replace("_", "-"), "--sample", "--seed", str(random.getrandbits(32)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 failed" in done.stdout


@pytest.fixture
def trial(tmp_path):
    """A runner with one sweep, whose case 3 fails and whose case 5 is stopped once."""
    folder = tmp_path / "tests" / "soak"
    folder.mkdir(parents=True)
    (folder / "run.py").write_text((HERE / "run.py").read_text())
    (folder / "sweep_trial.py").write_text(
        f"""'''A trial.'''
from contextlib import contextmanager
from pathlib import Path

CASES, SAMPLE = 8, 2
log = Path({str(tmp_path / "log")!r})

@contextmanager
def opened():
    yield case

def case(number, chance):
    seen = log.read_text() if log.exists() else ""
    log.write_text(f"{{seen}}{{number}}:{{chance.random()}}\\n")
    assert number != 3
    if number == 5 and seen.count("5:") == 0:
        raise KeyboardInterrupt
"""
    )
    return folder, tmp_path / "log"


def test_a_stopped_sweep_goes_on_and_a_failed_case_can_be_repeated(trial):
    folder, log = trial
    first = soak("trial", "--seed", "7", folder=folder)
    assert "goes on" in first.stderr
    assert "again: ./dev soak trial --seed 7 --only 3" in first.stdout
    second = soak("trial", folder=folder)
    assert second.returncode == 1
    assert "seed 7, cases 5 to 8" in second.stdout
    assert "3 cases in 0 s, 1 failed: [3]" in second.stdout
    numbers, draws = zip(*(line.split(":") for line in log.read_text().split()), strict=True)
    assert "".join(numbers) == "012345567"
    assert soak("trial", "--seed", "7", "--only", "3", folder=folder).returncode == 1
    assert log.read_text().split()[-1] == f"3:{draws[3]}"


def test_no_sweep_of_that_name_is_wrong_use(trial):
    done = soak("nonsense", folder=trial[0])
    assert done.returncode == 2
    assert "there are trial" in done.stderr
