"""Jupyter's own suite for kernels, on each kind of inner kernel."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.kernel.python_suite import PythonSuite
from tests.kernel.shell_suite import ShellSuite

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def kernelspecs(tmp_path_factory):
    """Kernelspecs of the three kinds, where jupyter_client looks."""
    folder = tmp_path_factory.mktemp("jupyter")
    script = str(Path(__file__).with_name("local_kernel.py"))
    for kind in ("ipykernel", "python", "sh"):
        work = tmp_path_factory.mktemp(kind)
        spec = {
            "argv": [sys.executable, script, "{connection_file}", str(work), kind],
            "display_name": kind,
            "language": "python",
            "interrupt_mode": "message",
            "env": {
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "IPYTHONDIR": str(folder / "ipython"),  # a history without the user's own cells
            },
        }
        place = folder / "kernels" / f"test-{kind}"
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(spec))
    patch = pytest.MonkeyPatch()
    patch.setenv("JUPYTER_PATH", str(folder))
    yield
    patch.undo()


class TestIpykernelInside(PythonSuite):
    kernel_name = "test-ipykernel"
    code_page_something = "zip?"


class TestPythonAgent(PythonSuite):
    kernel_name = "test-python"
    supported_history_operations = ("tail", "range", "search")
    code_page_something = "zip?"


class TestShellAgent(ShellSuite):
    kernel_name = "test-sh"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.begin()


del PythonSuite, ShellSuite
