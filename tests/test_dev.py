"""``./dev test``: its exit status is that of the tests, and whom it makes to run them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import ROOT

BOTH = """
set -- help
source ./dev >/dev/null
python() { return OURS; }
test_as_ordinary_user() { return THEIRS; }
test_as_both
"""


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_it_fails_if_either_half_of_the_tests_does(ours, theirs):
    script = BOTH.replace("OURS", str(ours)).replace("THEIRS", str(theirs))
    done = subprocess.run(["bash", "-c", script, "./dev"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (1 if ours or theirs else 0), done.stderr
    assert ("tests failed" in done.stderr) == bool(ours or theirs)


MAKE = """
set -- help
source ./dev >/dev/null
ordinary_user=USER
useradd() { echo made; }
usermod() { :; }
make_ordinary_user
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")
def test_what_a_removed_user_of_the_same_name_left_is_not_in_the_way():
    user = f"ck-nobody-{os.getpid()}"
    left = [Path("/home", user), Path("/tmp", f"pytest-of-{user}")]
    for folder in left:
        folder.mkdir()
        os.chown(folder, 54321, 54321)
    script = MAKE.replace("USER", user)
    done = subprocess.run(["bash", "-c", script, "./dev"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "made\n", done.stderr
    assert not any(folder.exists() for folder in left)  # pytest refuses one that is another's
