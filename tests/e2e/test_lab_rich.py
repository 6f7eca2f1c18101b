"""What JupyterLab adds on top of cells: widgets and the debugger, with kernels that know them."""

from __future__ import annotations

import pytest

from tests.e2e.front import BUILD_TIMEOUT_MS, IMAGE

pytestmark = [pytest.mark.privileged, pytest.mark.slow, pytest.mark.timeout(900)]

SLIDER = """\
import matplotlib.pyplot as plt
from ipywidgets import interact

@interact(power=(1, 5))
def draw(power=2):
    plt.figure(figsize=(6, 2.5))
    plt.plot([n**power for n in range(9)])
    plt.title(f"n to the power of {power}")
    plt.show()
"""
DEBUGGED = """\
x = 6
y = x * 7
print(y)
"""


def test_a_slider_drives_a_plot(lab, page):
    book = lab.open(page, lab.write("slider.ipynb", *IMAGE, "%pip ipywidgets", SLIDER))
    book.run_all()
    drawn = book.cell(4).locator("img")
    drawn.wait_for()
    square = drawn.get_attribute("src")
    book.cell(4).locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    book.cell(4).locator(".widget-readout", has_text="3").wait_for()
    page.wait_for_function(
        "square => { const drawn = document.querySelector('.jp-Notebook .jupyter-widgets img');"
        " return drawn && drawn.getAttribute('src') !== square }",
        arg=square,
    )
    book.picture("slider")


def test_the_debugger_stops_at_a_breakpoint(lab, page):
    page.set_viewport_size({"width": 1180, "height": 560})
    book = lab.open(page, lab.write("debugger.ipynb", *IMAGE, DEBUGGED))
    for number in range(3):
        book.run(number, BUILD_TIMEOUT_MS)
    book.run(3)
    page.locator(".jp-DebuggerBugButton").first.click()
    gutter = book.cell(3).locator(".cm-breakpoint-gutter .cm-gutterElement")
    gutter.nth(2).click()  # the first is what keeps the gutter's width
    page.locator(".jp-DebuggerBreakpoint").wait_for()
    book.start(3)
    page.locator(".jp-DebuggerCallstackFrame", has_text="Cell").wait_for()
    line = book.cell(3).locator(".jp-DebuggerEditor-highlight")
    line.wait_for()
    book.picture("debugger")
    assert line.inner_text() == "y = x * 7"
    assert book.text(3) == ""  # it has not come as far as print
    page.keyboard.press("F9")  # continue
    book.wait_for_end(3)
    assert book.text(3).strip() == "42"


def test_without_a_debugger_the_button_says_what_brings_one(lab, page):
    book = lab.open(page, lab.write("agent.ipynb", *IMAGE[:2], DEBUGGED))
    book.run_all()
    with page.expect_console_message(lambda message: "debugger" in message.text) as said:
        page.locator(".jp-DebuggerBugButton").first.click()
    book.picture("debugger-none")
    assert "ipykernel in a %pip cell brings one" in said.value.text
    assert book.run(2).strip() == "42"
