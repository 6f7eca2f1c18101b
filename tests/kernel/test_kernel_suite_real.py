"""Jupyter's own suite through the kernelspec, in images made by the cells of a notebook."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.kernel.python_suite import PythonSuite
from tests.kernel.shell_suite import ShellSuite

pytestmark = [pytest.mark.privileged, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


class InImage:
    """Build first, then be an ordinary kernel."""

    kernel_name = "container-under-test"
    build = ()

    @classmethod
    def setUpClass(cls):
        """Install a kernelspec, start the kernel, run the build cells."""
        cls.folder = tempfile.TemporaryDirectory(prefix="suite-")
        place = Path(cls.folder.name) / "kernels" / cls.kernel_name
        place.mkdir(parents=True)
        spec = json.loads((ROOT / "container_kernel/kernelspec/kernel.json").read_text())
        spec["argv"][0] = sys.executable
        spec["env"] = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        (place / "kernel.json").write_text(json.dumps(spec))
        cls.patch = pytest.MonkeyPatch()
        cls.patch.setenv("JUPYTER_PATH", cls.folder.name)
        super().setUpClass()
        for code in cls.build:
            reply = cls.kc.execute_interactive(code, timeout=900, output_hook=lambda _: None)
            assert reply["content"]["status"] == "ok", reply["content"]

    @classmethod
    def tearDownClass(cls):
        """Stop, clean up."""
        super().tearDownClass()
        cls.patch.undo()
        cls.folder.cleanup()


class TestPythonAgent(InImage, PythonSuite):
    build = ("%base debian:bookworm", "%apt python3")
    supported_history_operations = ("tail", "range", "search")
    code_page_something = "zip?"


class TestShellAgent(InImage, ShellSuite):
    build = ("%base busybox",)

    @classmethod
    def setUpClass(cls):
        """A cell has run before anybody asks."""
        super().setUpClass()
        cls.begin()


class TestIpykernel(InImage, PythonSuite):
    build = ("%base debian:bookworm", "%apt python3", "%pip ipykernel matplotlib")
    code_page_something = "zip?"


del InImage, PythonSuite, ShellSuite
