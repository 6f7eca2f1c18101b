"""A session in JupyterLab: what the fingers do besides running cells."""

from __future__ import annotations

import pytest

from tests.e2e.front import BUILD_TIMEOUT_MS, IMAGE

pytestmark = [pytest.mark.privileged, pytest.mark.slow, pytest.mark.timeout(900)]

WAITING_BUILD = "%%build --net none\necho counting sheep\nsleep 1000"
WAITING_RUN = "import time\nprint('counting sheep')\ntime.sleep(1000)"


@pytest.fixture
def python(lab, page):
    """Open a notebook whose image has the ordinary Python kernel, and give it these cells."""

    def opened(*cells):
        return lab.open(page, lab.write("session.ipynb", *IMAGE, *cells))

    return opened


def test_tab_completes_and_shift_tab_inspects(python):
    book = python("kept = 6", "", "")
    book.run_all()
    page = book.page
    completer = page.locator(".jp-Completer:not(.lm-mod-hidden)")
    tooltip = page.locator(".jp-Tooltip")

    book.write(4, "%wor")
    page.keyboard.press("Tab")
    completer.wait_for()
    book.picture("complete-magic")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    tooltip.wait_for()
    book.picture("inspect-magic")
    assert book.source(4).startswith("%workdir")
    assert "Set the working directory" in tooltip.inner_text()
    page.keyboard.press("Escape")

    book.write(5, "kept.bit_l")
    page.keyboard.press("Tab")
    completer.wait_for()
    book.picture("complete-python")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    tooltip.wait_for()
    book.picture("inspect-python")
    assert book.source(5).startswith("kept.bit_length")
    assert "Number of bits necessary" in tooltip.inner_text()


def test_the_interrupt_button_ends_builds_and_cells(python):
    book = python("kept = 6", WAITING_BUILD, WAITING_RUN, "kept * 7", "%layers")
    for number in range(4):
        book.run(number, timeout_ms=BUILD_TIMEOUT_MS)

    book.start(4)
    book.cell(4).locator("pre", has_text="counting sheep").wait_for()
    book.picture("building")
    book.button("interrupt").click()
    book.wait_for_end(4)
    book.picture("build-interrupted")
    assert "interrupted, nothing frozen" in book.text(4)

    book.start(5)
    book.output(5, "counting sheep").wait_for()
    book.button("interrupt").click()
    book.wait_for_end(5)
    assert "KeyboardInterrupt" in book.text(5)
    assert book.run(6) == "42"
    book.picture("run-interrupted")
    assert "counting sheep" not in book.run(7)  # nothing was frozen


def test_a_restarted_session_has_the_built_environment(python):
    book = python("kept = 6", "import matplotlib\n'kept' in dir()")
    book.run_all()
    book.button("restart").click()
    book.picture("restart")
    book.page.locator(".jp-Dialog .jp-mod-accept").click()
    book.page.locator(".jp-Dialog").wait_for(state="detached")
    book.wait_for_kernel()
    # No build cell was run again: the image is there.
    assert book.run(4) == "False"
    book.picture("restarted")


def test_input_asks_in_the_cell_and_a_layer_slides_under_the_session(python):
    """Two claims on one page: loading a page and starting a kernel is what takes the time."""
    book = python(
        "name = input('What is your name? ')",
        "%%build --net none\necho Hello > /greeting",
        "open('/greeting').read() + name",
    )
    for number in range(3):
        book.run(number, timeout_ms=BUILD_TIMEOUT_MS)
    book.start(3)
    box = book.cell(3).locator(".jp-Stdin-input")
    box.wait_for()
    book.picture("input")
    box.fill("Ada")
    box.press("Enter")
    book.wait_for_end(3)
    assert "keeps its variables" in book.run(4)
    assert book.run(5) == "'Hello\\nAda'"
    book.picture("rebase")
    # Good news is no warning: front ends show stderr as one.
    assert book.cell(4).locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
