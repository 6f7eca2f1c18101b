"""Notebooks are run from a copy, by a Jupyter that knows our kernel only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def jupyter(tmp_path: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged kernelspec is the one that Jupyter finds; bases are kept for the whole run."""
    monkeypatch.setenv("CONTAINER_KERNEL_HOME", str(shared_home))
    data = tmp_path / "jupyter"
    shutil.copytree(ROOT / "container_kernel" / "kernelspec", data / "kernels" / "container")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(data))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the notebooks."""
    return Path(shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks"))
