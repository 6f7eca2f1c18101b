"""Entering namespaces takes three processes; whichever of them is killed, the others end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.privileged
ENTER = f"""
import os, sys
sys.path[:] = {sys.path!r}
from container_kernel.runtime import namespace
namespace.enter(os.environ)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_nobody_waits_for_one_that_was_killed_on_the_way(entered, tmp_path, number):
    """Each writes a word to the other when it is that far."""
    if entered.is_rootless:
        pytest.skip("strace is too slow inside a user's namespaces")
    strace = ["strace", "-f", "-qq", "-o", str(tmp_path / "calls"), "-e", "trace=write"]
    inject = ["-e", f"inject=write:signal=KILL:when={number}"]
    argv = [*strace, *inject, sys.executable, "-I", "-S", "-c", ENTER]
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    tmp_path.chmod(0o700)
    subprocess.run(argv, env=environ, capture_output=True, timeout=30)
    assert number > 2 or "killed by SIGKILL" in (tmp_path / "calls").read_text()
