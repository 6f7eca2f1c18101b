"""Notebooks are run from a copy, by a Jupyter that knows our kernel only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def kernelspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged kernelspec is the one that Jupyter finds."""
    data = tmp_path / "jupyter"
    shutil.copytree(ROOT / "container_kernel" / "kernelspec", data / "kernels" / "container")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(data))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the notebooks."""
    return Path(shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks"))
