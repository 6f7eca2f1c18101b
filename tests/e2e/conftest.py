"""A real JupyterLab and a real Chromium, both private to the test run."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.front import Lab, new_page

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Everything that would look for the outside world is off: the browser sees this server only.
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
]
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Every cell is in the page, not only those in view.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@pytest.fixture(scope="session")
def lab(tmp_path_factory, shared_home: Path) -> Iterator[Lab]:
    """One server for all tests; Notebook 7 is served by it too. Each test has its own notebook."""
    top = tmp_path_factory.mktemp("lab")
    folder = top / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)
    places = {
        name: top / name.lower()
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    shutil.copytree(
        ROOT / "container_kernel" / "kernelspec",
        places["JUPYTER_DATA_DIR"] / "kernels" / "container",
    )
    for name, value in SETTINGS.items():
        path = top / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    token, log = secrets.token_hex(16), top / "jupyterlab.log"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"),
        *(f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}"),
        *("--ServerApp.ip=127.0.0.1", "--LabApp.extension_manager=readonly"),
        f"--LabApp.user_settings_dir={top / 'settings'}",
        f"--LabApp.workspaces_dir={top / 'workspaces'}",
    ]
    env = os.environ | {name: str(path) for name, path in places.items()}
    env["CONTAINER_KERNEL_HOME"] = str(shared_home)
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, env=env, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        ) as server,
    ):
        try:
            url = wait_for_url(server, places["JUPYTER_RUNTIME_DIR"], log)
            yield Lab(url, token, folder, top / "settings", log)
        finally:
            server.terminate()


def wait_for_url(server: subprocess.Popen[bytes], runtime_dir: Path, log: Path) -> str:
    """The server writes where it listens into a file of its own once it does."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        for path in runtime_dir.glob("jpserver-*.json"):
            try:
                return str(json.loads(path.read_text())["url"])
            except ValueError:
                continue  # half written
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, the one of the distribution.

    No longer than for one module: while Playwright runs, this thread has an event loop, which
    other tests would stumble over.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, lab):
    """A page of its own for one test, after which no kernel runs any more."""
    page = new_page(browser)
    yield page
    lab.end_sessions(page)
    page.close()
