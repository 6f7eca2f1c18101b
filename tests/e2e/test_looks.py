"""Looks: every display in JupyterLab's light and dark themes, and what other tools make of them."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.privileged, pytest.mark.slow, pytest.mark.timeout(900)]

GALLERY = (
    "%base debian:bookworm",
    "%apt python3",
    "%env LANG=C.UTF-8",
    "%%build --name \"a log\" --net none\nfor i in $(seq 30); do echo \"line $i\"; done\n"
    "printf '\\033[31mred\\033[0m \\033[32mgreen\\033[0m \\033[33mamber\\033[0m "
    "\\033[34mblue\\033[0m \\033[35mviolet\\033[0m \\033[36mcyan\\033[0m\\n'",
    "%layers",
    "print(1)",
    "%%build --net none\necho about to fail\ncat /no/such/file",
    "%%run --net none --memory 64m --meters\necho hello",
    "%tag gallery:1",
    "%images",
    "%image inspect gallery:1",
    "%pipp x",
    "%build x",
    "%copy nothing /",
    "open('/tmp/scratch', 'w').write('x' * 5000)",
    "%freeze gallery:2",
    "%help",
    "%help run",
    "%base nowhere:1",
    "%%run sh -c 'exit 3'",
    "%%build --net none\nfor i in $(seq 12); do echo \"step $i of many\"; done; sleep 1000",
)


def test_gallery(lab, page):
    book = lab.open(page, lab.write("gallery.ipynb", *GALLERY))
    for n in range(len(GALLERY) - 1):
        book.run(n, 600_000)
    page.set_viewport_size({"width": 1180, "height": 3600})
    book.start(len(GALLERY) - 1)
    book.cell(len(GALLERY) - 1).locator("pre", has_text="step 12 of many").wait_for()
    page.locator(".jp-Cell").first.scroll_into_view_if_needed()
    book.picture("gallery-light")
    book.button("interrupt").click()
    book.wait_for_end(len(GALLERY) - 1)
    import json; open("/tmp/browser-x/gallery.json", "w").write(json.dumps(book.save()))
    lab.choose_theme("JupyterLab Dark")
    try:
        page.set_viewport_size({"width": 1180, "height": 3600})
        book = lab.open(page, "gallery.ipynb")
        page.locator('body[data-jp-theme-name="JupyterLab Dark"]').wait_for(state="attached")
        for d in page.locator("summary").all(): d.click()
        page.locator(".jp-Cell").first.scroll_into_view_if_needed()
        book.picture("gallery-dark")
        import json as j
        nb = j.loads((lab.folder / "gallery.ipynb").read_text())
        (lab.folder / "untrusted.ipynb").write_text(j.dumps(nb).replace("gallery:1", "gallery:9"))
        book = lab.open(page, "untrusted.ipynb")
        book.picture("gallery-untrusted")
    finally:
        lab.choose_theme("JupyterLab Light")
