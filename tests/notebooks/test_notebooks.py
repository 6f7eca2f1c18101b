"""The notebooks are tests: each runs to its end, in every way that people run notebooks."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # What Jupyter's own libraries leave behind is not ours to fail on.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
CELL_TIMEOUT_S = 600


def texts(notebook: nbformat.NotebookNode, cell_id: str) -> str:
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return "\n".join(
        out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_under_pytest_notebook(path, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytest_notebook.nb_regression import NBRegressionFixture
    ignored = ("/cells/*/outputs", "/cells/*/execution_count", "/metadata")
    notebooks = NBRegressionFixture(exec_timeout=CELL_TIMEOUT_S, diff_ignore=ignored)
    notebooks.check(str(folder / path.name))


def test_quickstart_runs_in_nbclient(folder):
    notebook = nbformat.read(folder / "quickstart.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    assert "124 wines to learn from, 54 kept back" in texts(notebook, "split")
    assert "network interfaces: ['lo']" in texts(notebook, "network")
    assert "sha256:" in texts(notebook, "layers")


def test_quickstart_takes_parameters_from_papermill(folder):
    papermill = pytest.importorskip("papermill", reason="papermill is not installed")
    notebook = papermill.execute_notebook(
        str(folder / "quickstart.ipynb"),
        str(folder / "out.ipynb"),
        parameters={"test_share": 0.5},
        cwd=str(folder),
        progress_bar=False,
    )
    assert "89 wines to learn from, 89 kept back" in texts(notebook, "split")


def test_quickstart_runs_from_the_command_line_and_the_same_image_comes_out_again(folder):
    def run() -> dict[str, dict[str, object]]:
        command = [sys.executable, "-m", "container_kernel", "run", "quickstart.ipynb", "--json"]
        done = subprocess.run(
            [*command, "-o", "out.ipynb"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["status"] == "ok"
        return result["stages"]

    first, second = run()["main"], run()["main"]
    assert second["layers"][:4] == [
        layer | {"cached": True, "seconds": again["seconds"]}
        for layer, again in zip(first["layers"][:4], second["layers"], strict=False)
    ]
    notebook = nbformat.read(folder / "out.ipynb", as_version=4)
    assert "124 wines to learn from, 54 kept back" in texts(notebook, "split")
