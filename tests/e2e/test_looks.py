"""Looks: our displays in both of JupyterLab's themes, and in what other tools make of the file."""

from __future__ import annotations

import json
import os

import pytest

from tests.e2e.front import BUILD_TIMEOUT_MS, new_page, take_picture

pytestmark = [pytest.mark.privileged, pytest.mark.slow, pytest.mark.timeout(900)]

COLOURS = "\\n".join(f"\\033[{code}mcolour {code}\\033[0m" for code in range(31, 37))
CELLS = (
    "%base debian:bookworm",
    "%apt python3",
    "%%build --name 'a name' --net none\necho name > /name",
    "%env LANG=C.UTF-8",
    "%layers",
    "%tag gallery:1",
    "%images",
    "%image inspect gallery:1",
    "print('inside')",
    f"%%build --net none\nprintf '{COLOURS}\\n'\ncat /no/such/file",
)
# A colour that is to do on a light and on a dark ground can have no more.
READABLE = 3.8
CONTRASTS = """() => {
    const parse = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return {rgb: [r, g, b], a};
    };
    const over = (top, below) => top.rgb.map((c, i) => c * top.a + below[i] * (1 - top.a));
    const ground = node => {
        if (!node) return [255, 255, 255];
        const own = parse(getComputedStyle(node).backgroundColor);
        return own.a === 1 ? own.rgb : over(own, ground(node.parentElement));
    };
    const light = rgb => rgb.map(c => c / 255)
        .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const found = [];
    for (const node of document.querySelectorAll('.jp-RenderedHTML *')) {
        const own = [...node.childNodes].filter(it => it.nodeType === 3 && it.data.trim());
        if (!own.length) continue;
        const below = ground(node);
        const [a, b] = [light(over(parse(getComputedStyle(node).color), below)), light(below)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        found.push([ratio, own[0].data.trim().slice(0, 40), getComputedStyle(node).color]);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def gallery(lab, browser):
    """A notebook with each kind of display, run and saved, and its page."""
    page = new_page(browser)
    book = lab.open(page, lab.write("gallery.ipynb", *CELLS))
    for number in range(len(CELLS)):
        book.run(number, BUILD_TIMEOUT_MS)
    yield book, book.save()
    page.close()


def check_contrast(page, least: int) -> None:
    for folded in page.locator(".jp-RenderedHTML summary").all():
        folded.click()
    found = page.evaluate(CONTRASTS)
    assert len(found) > least
    assert [it for it in found if it[0] < READABLE] == []


def test_displays_are_readable_in_both_themes(gallery, lab):
    book, saved = gallery
    page = book.page
    check_contrast(page, 50)
    book.picture("looks-light")
    lab.choose_theme("JupyterLab Dark")
    try:
        dark = lab.open(page, book.name)
        page.locator('body[data-jp-theme-light="false"]').wait_for(state="attached")
        check_contrast(page, 50)
        dark.picture("looks-dark")
    finally:
        lab.choose_theme("JupyterLab Light")
    for cell in saved["cells"]:
        for output in cell["outputs"]:
            assert "text" in output or "traceback" in output or "text/plain" in output["data"]


@pytest.mark.usefixtures("gallery")
def test_running_it_again_saves_the_same_file(lab, page):
    """Two Run Alls of fresh sessions; the gallery left every layer in the store."""
    cells = (*CELLS[:2], CELLS[3], CELLS[4], CELLS[8])
    book = lab.open(page, lab.write("again.ipynb", *cells))
    book.run_all()
    first = book.save()
    # Not "Restart and Run All": the numbers of the first run would still stand for a moment.
    book.menu("Kernel", "Restart Kernel and Clear Outputs of All Cells…")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.locator(".jp-Dialog").wait_for(state="detached")
    book.wait_for_kernel()
    for number in range(len(cells)):
        book.wait_for_reset(number)
    book.run_all()
    assert book.save() == first


def test_nbconvert_keeps_the_displays(gallery, page, tmp_path):
    nbconvert = pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    import nbformat

    _, saved = gallery
    notebook = nbformat.reads(json.dumps(saved), as_version=4)
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "gallery.html").write_text(html)
    page.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
    page.goto(f"file://{tmp_path}/gallery.html", wait_until="domcontentloaded")
    check_contrast(page, 50)
    take_picture(page, "looks-html")
    page.emulate_media(media="print")
    pdf = page.pdf(path=os.environ.get("CONTAINER_KERNEL_PDF") or tmp_path / "gallery.pdf")
    assert pdf.startswith(b"%PDF")
