"""A notebook in a front end, as a user handles it: types, clicks, looks."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

BUILD_TIMEOUT_MS = 600_000
# An image with the ordinary Python kernel; the tests of the kernel build the same.
IMAGE = ("%base debian:bookworm", "%apt python3", "%pip ipykernel matplotlib")
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(it => it.innerText)"
NUMBERED = rf"{PROMPTS}.filter(text => /\d/.test(text)).length"
# Run All marks every cell as waiting; one that fails takes the mark from those behind it.
FINISHED = f"() => {NUMBERED} > 0 && !{PROMPTS}.some(text => text.includes('*'))"
ASKING = "() => document.querySelector('.jp-Dialog') !== null"  # that the kernel died, say


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab server."""

    url: str
    token: str
    folder: Path
    settings: Path
    log: Path

    def write(self, name: str, *cells: str) -> str:
        """Make a notebook of these cells, for our kernel."""
        spec = {"name": "container", "display_name": "Container", "language": "python"}
        content = {
            "cells": [_cell(number, source) for number, source in enumerate(cells)],
            "metadata": {"kernelspec": spec},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.folder / name).write_text(json.dumps(content))
        return name

    def open(self, page, notebook: str) -> Notebook:
        """Open a notebook of the server's folder in JupyterLab, its kernel ready."""
        page.goto(f"{self.url}lab/tree/{notebook}?token={self.token}&reset")
        book = Notebook(page, self, notebook)
        book.wait_for_kernel()
        page.keyboard.press("Control+b")  # the file browser only takes room
        return book

    def end_sessions(self, page) -> None:
        """Shut down all kernels."""
        for session in page.request.get(f"{self.url}api/sessions?token={self.token}").json():
            page.request.delete(f"{self.url}api/sessions/{session['id']}?token={self.token}")

    def choose_theme(self, name: str) -> None:
        """Have pages that are opened from now on look so: ``JupyterLab Dark``."""
        path = self.settings / "@jupyterlab/apputils-extension/themes.jupyterlab-settings"
        path.write_text(json.dumps({"theme": name}))

    def open_classic(self, page, notebook: str) -> Notebook:
        """Open it in Notebook 7."""
        page.goto(f"{self.url}notebooks/{notebook}?token={self.token}")
        book = Notebook(page, self, notebook)
        book.wait_for_kernel()
        return book


def _cell(number: int, source: str) -> dict[str, object]:
    return {
        "cell_type": "code",
        "id": f"cell-{number}",
        "source": source,
        "metadata": {},
        "execution_count": None,
        "outputs": [],
    }


@dataclass(frozen=True)
class Notebook:
    """A notebook in a page. Cells are counted from 0, code cells only."""

    page: object
    lab: Lab
    name: str

    def cell(self, number: int):
        """A code cell."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def start(self, number: int) -> None:
        """Run a cell; it may still run when this returns."""
        self.cell(number).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Control+Enter")

    def run(self, number: int, timeout_ms: int = 60_000) -> str:
        """Run a cell to its end; the text of its outputs."""
        self.start(number)
        self.wait_for_end(number, timeout_ms)
        return self.text(number)

    def wait_for_end(self, number: int, timeout_ms: int = 60_000) -> None:
        """Wait until a cell that was started has its number."""
        done = rf"n => /\[\d+\]/.test({PROMPTS}[n])"
        self.page.wait_for_function(done, arg=number, timeout=timeout_ms)

    def wait_for_reset(self, number: int, timeout_ms: int = 60_000) -> None:
        """Wait until a cell has no number any more."""
        gone = rf"n => !/\[\d+\]/.test({PROMPTS}[n])"
        self.page.wait_for_function(gone, arg=number, timeout=timeout_ms)

    def run_all(self, timeout_ms: int = BUILD_TIMEOUT_MS) -> None:
        """Run all cells, to the end or to the first that fails."""
        self.menu("Run", "Run All Cells")
        self.page.wait_for_function(f"() => ({FINISHED})() || ({ASKING})()", timeout=timeout_ms)
        dialogs = self.page.locator(".jp-Dialog").all_inner_texts()
        assert not dialogs, f"{dialogs}\n{self.lab.log.read_text()}"

    def wait_for_kernel(self) -> None:
        """Wait until the kernel is there and idle."""
        # The indicator says idle also while there is no kernel yet.
        self.page.locator(".jp-Toolbar-kernelName", has_text="Container").wait_for()
        self.page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()

    def source(self, number: int) -> str:
        """What stands in a cell."""
        return self.cell(number).locator(".cm-content").inner_text()

    def output(self, number: int, text: str):
        """The output of a cell that says ``text``."""
        return self.cell(number).locator(".jp-OutputArea-output", has_text=text).first

    def text(self, number: int) -> str:
        """What the outputs of a cell say."""
        return "\n".join(self.cell(number).locator(".jp-OutputArea-output").all_inner_texts())

    def write(self, number: int, text: str) -> None:
        """Type into a cell, at its end."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+End")
        self.page.keyboard.type(text)

    def menu(self, *words: str) -> None:
        """Choose from the menu bar."""
        for word in words:
            self.page.get_by_role("menuitem", name=word, exact=True).click()

    def button(self, title: str):
        """A button of the notebook's toolbar."""
        return self.page.locator(f'.jp-NotebookPanel-toolbar [data-jp-item-name="{title}"] *').first

    def save(self) -> dict[str, object]:
        """Save it; the notebook as the server wrote it."""
        path = self.lab.folder / self.name
        before = path.stat().st_mtime_ns
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+s")
        for _ in range(100):
            if path.stat().st_mtime_ns != before:
                return json.loads(path.read_text())
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{self.name} was not saved")

    def picture(self, name: str) -> None:
        """Take a picture of the page, where pictures are wanted."""
        take_picture(self.page, name)


def new_page(browser):
    """A page as large as a tall screen."""
    page = browser.new_page(viewport={"width": 1180, "height": 1500})
    page.set_default_timeout(60_000)
    return page


def take_picture(page, name: str) -> None:
    """A picture for people to look at, where the environment names a folder for them."""
    if folder := os.environ.get("CONTAINER_KERNEL_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")
