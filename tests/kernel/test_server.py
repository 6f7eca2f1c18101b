"""A Jupyter server has a process waiting for its first kernel already."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from container_kernel.kernel.server import _STARTED_S
from tests.e2e.conftest import wait_for_url
from tests.kernel.conftest import ROOT, environ, until

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(find_spec("jupyter_server") is None, reason="no Jupyter server here"),
]
EXTENSION = json.loads((ROOT / "container_kernel/kernel/server.json").read_text())


class Server:
    """A real one, with our kernelspec and our extension."""

    def __init__(self, top: Path, home: Path, *options: str) -> None:
        for folder in ("config", "data/kernels", "runtime", "run"):
            (top / folder).mkdir(parents=True)
        (top / "config/jupyter_server_config.json").write_text(json.dumps(EXTENSION))
        shutil.copytree(ROOT / "container_kernel/kernelspec", top / "data/kernels/container")
        places = {f"JUPYTER_{name.upper()}_DIR": str(top / name) for name in ("config", "data")}
        places |= {"JUPYTER_RUNTIME_DIR": str(top / "runtime")}
        self._token, self._runtime = secrets.token_hex(16), top / "runtime"
        command = [
            *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--port=0"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={top}"),
            *(f"--IdentityProvider.token={self._token}", *options),
        ]
        self.log = top / "log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, env=environ(home, top / "run", **places), stdout=out, stderr=out
            )

    def children(self, word: str) -> list[int]:
        """The processes it has started with that word in their command lines."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids.split()}
        return [pid for pid, line in lines.items() if word.encode() in line.split(b"\0")]

    @property
    def url(self) -> str:
        """Where it serves, once it does."""
        return wait_for_url(self.process, self._runtime, self.log)

    def open(self, notebook: str) -> None:
        """Start the kernel of a notebook."""
        session = {"path": notebook, "name": notebook, "type": "notebook"}
        request = urllib.request.Request(
            f"{self.url}api/sessions",
            json.dumps({**session, "kernel": {"name": "container"}}).encode(),
            {"Authorization": f"token {self._token}"},
        )
        urllib.request.urlopen(request).close()


@contextmanager
def serving(*arguments):
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def test_the_first_kernel_of_a_server_is_the_process_that_waits(tmp_path, home):
    with serving(tmp_path, home) as server:
        (waiting,) = until(lambda: server.children("--spare"))
        server.open("a.ipynb")
        (another,) = until(lambda: set(server.children("--spare")) - {waiting})
        # No other was started: it is the kernel now.
        assert set(server.children("container_kernel.kernel")) == {waiting, another}
    until(lambda: not Path(f"/proc/{waiting}").exists())


@pytest.mark.parametrize("what", ["nothing was built before", "it is not wanted"])
def test_no_process_waits_where(what, tmp_path, home):
    options = ["--SpareProvisioner.keep_spare=False"] if what == "it is not wanted" else []
    folder = home if options else tmp_path / "no-home"
    with serving(tmp_path, folder, *options) as server:
        assert server.url
        with pytest.raises(AssertionError, match="waited too long"):
            until(lambda: server.children("--spare"), timeout_s=2 * _STARTED_S)
