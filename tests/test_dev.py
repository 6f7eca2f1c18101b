"""``./dev``: its exit status is that of the tests."""

from __future__ import annotations

import subprocess

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
