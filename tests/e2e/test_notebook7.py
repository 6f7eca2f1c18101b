"""The quickstart in Notebook 7, whose server JupyterLab's is."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("notebook", reason="Notebook 7 is not installed")
pytestmark = [pytest.mark.privileged, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_quickstart_runs_to_its_end_in_notebook_7(lab, page):
    source = (lab.folder / "quickstart.ipynb").read_text()
    (lab.folder / "classic.ipynb").write_text(source)
    book = lab.open_classic(page, "classic.ipynb")
    book.run_all()
    page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
    book.picture("notebook7")
    code = [cell for cell in book.save()["cells"] if cell["cell_type"] == "code"]
    found = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in found
    assert all(cell["execution_count"] for cell in code)
    shown = json.dumps([output for cell in code for output in cell["outputs"]])
    assert "image/png" in shown
    assert "sha256:" in shown
