"""The quickstart as a stranger meets it: JupyterLab, a browser, Run All."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.privileged, pytest.mark.slow, pytest.mark.timeout(900)]

PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(it => it.innerText)"
NUMBERED = rf"{PROMPTS}.filter(text => /\d/.test(text)).length"
# Run All marks every cell as waiting; one that fails takes the mark from those behind it.
FINISHED = f"() => {NUMBERED} > 0 && !{PROMPTS}.some(text => text.includes('*'))"
ASKING = "() => document.querySelector('.jp-Dialog') !== null"  # that the kernel died, say


@pytest.fixture
def quickstart(lab, page):
    """The quickstart after Run All: the page, and the notebook as JupyterLab saved it."""
    page.goto(lab.address("quickstart.ipynb"))
    page.locator(".jp-Notebook h1").first.wait_for()
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(f"() => ({FINISHED})() || ({ASKING})()", timeout=600_000)
    dialogs = page.locator(".jp-Dialog").all_inner_texts()
    assert dialogs == [], lab.log.read_text()
    page.keyboard.press("Control+s")
    path = lab.folder / "quickstart.ipynb"
    wait_until_saved(page, path)
    return page, json.loads(path.read_text())


def wait_until_saved(page, path: Path) -> None:
    """Until the file has as many numbered cells as the page."""
    wanted = page.evaluate(f"() => {NUMBERED}")
    for _ in range(100):
        cells = json.loads(path.read_text())["cells"]
        if sum(bool(cell.get("execution_count")) for cell in cells) == wanted:
            return
        page.wait_for_timeout(100)


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


def test_the_quickstart_runs_to_its_end_in_jupyterlab(quickstart, tmp_path):
    page, notebook = quickstart
    take_picture(page, tmp_path / "quickstart.png")
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
    drawn = page.locator(".jp-OutputArea-output img").first
    assert drawn.evaluate("image => image.naturalWidth") > 600
    # Isolation, the shell, the digest.
    assert "network interfaces: ['lo']" in text(notebook, "network")
    assert "unreachable" in text(notebook, "network")
    assert "quickstart.ipynb" in text(notebook, "host")
    assert "Debian GNU/Linux 12" in text(notebook, "sh")
    assert "sha256:" in text(notebook, "layers")


def take_picture(page, path: Path) -> None:
    """A picture of the top of the page; it replaces the one in the README only when asked to."""
    wanted = os.environ.get("CONTAINER_KERNEL_README_PICTURE")
    page.keyboard.press("Control+b")  # the file browser is no part of the picture
    page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
    page.screenshot(path=wanted or path)
