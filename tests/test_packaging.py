"""What a plain install of the wheel brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel in it, and nothing that it depends on."""
    place = tmp_path_factory.mktemp("installed")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "build", "--wheel", "--out-dir", place, ROOT], check=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([*uv, "venv", "--python", sys.executable, place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    subprocess.run([*uv, "pip", "install", "--no-deps", "--python", python, wheel], check=True)
    return place / "venv"


def test_the_kernelspec_comes_along_with_its_pictures(installed):
    folder = installed / "share" / "jupyter" / "kernels" / "container"
    spec = json.loads((folder / "kernel.json").read_text())
    assert spec["argv"][1:4] == ["-P", "-m", "container_kernel.kernel"]
    assert spec["interrupt_mode"] == "message"
    pictures = {path.name for path in folder.glob("logo*")}
    assert pictures == {"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"}


def test_a_server_finds_its_extension(installed):
    folder = installed / "etc" / "jupyter" / "jupyter_server_config.d"
    said = json.loads((folder / "container-kernel.json").read_text())
    (name,) = said["ServerApp"]["jpserver_extensions"]
    assert find_spec(name)


def test_the_base_definitions_come_along(installed):
    (package,) = installed.glob("lib/python*/site-packages/container_kernel")
    there = {path.name for path in (package / "_images").iterdir()}
    assert there == {path.name for path in (ROOT / "images").iterdir()}


def test_types_and_command_come_along(installed):
    (package,) = installed.glob("lib/python*/site-packages/container_kernel")
    assert (package / "py.typed").exists()
    command = [installed / "bin" / "container-kernel", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("container-kernel ")


def test_row_175_nothing_in_the_wheel_runs_with_rights_of_its_own(installed):
    """No set-user-id helper, no file capability, no compiled program."""
    (package,) = installed.glob("lib/python*/site-packages/container_kernel")
    files = [path for path in package.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        assert not path.stat().st_mode & 0o6000, path
        assert "security.capability" not in os.listxattr(path), path
        assert path.read_bytes()[:4] != b"\x7fELF", path


def test_row_175_nothing_is_looked_up_in_the_network_at_import():
    """Every module is imported in a process that ends when it connects or looks a name up."""
    code = """
import importlib, pkgutil, sys
import container_kernel

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        sys.exit(f"{event} {arguments}")

sys.addaudithook(watch)
count = 0
for module in pkgutil.walk_packages(container_kernel.__path__, "container_kernel."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
print(count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100
