"""The quickstart as a stranger meets it: JupyterLab, a browser, Run All."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.privileged, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def quickstart(lab, page):
    """The quickstart after Run All: the page, and the notebook as JupyterLab saved it."""
    book = lab.open(page, "quickstart.ipynb")
    book.run_all()
    return book, book.save()


def outputs(notebook, cell_id: str) -> list[dict[str, object]]:
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == cell_id)
    return cell["outputs"]


def text(notebook, cell_id: str) -> str:
    """All that a cell printed or showed, as text."""
    found = []
    for output in outputs(notebook, cell_id):
        content = output.get("text") or output.get("data", {}).get("text/plain", "")
        found.append("".join(content))
    return "\n".join(found)


def test_the_quickstart_runs_to_its_end_in_jupyterlab(quickstart):
    book, notebook = quickstart
    book.page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
    book.picture("quickstart")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    errors = [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
    assert errors == []
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))

    # Build cells: one card each, that names its layer.
    for step in ("base", "apt", "pip", "data"):
        (card,) = outputs(notebook, step)
        assert "text/html" in card["data"]
        assert "sha256:" in text(notebook, step)
    # Run cells: state from cell to cell, rich output, a plot that is really drawn.
    assert "124 wines to learn from, 54 kept back" in text(notebook, "split")
    assert any("text/html" in out.get("data", {}) for out in outputs(notebook, "load"))
    assert any("image/png" in out.get("data", {}) for out in outputs(notebook, "plot"))
    drawn = book.page.locator(".jp-OutputArea-output img").first
    assert drawn.evaluate("image => image.naturalWidth") > 600
    # Isolation, the shell, the digest.
    assert "network interfaces: ['lo']" in text(notebook, "network")
    assert "unreachable" in text(notebook, "network")
    assert "quickstart.ipynb" in text(notebook, "host")
    assert "Debian GNU/Linux 12" in text(notebook, "sh")
    assert "sha256:" in text(notebook, "layers")
