"""A server's next kernel is a process that waits: the same kernel, and nobody's before."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import nbformat
import pytest
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import KernelManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager

from container_kernel.kernel import provisioner
from container_kernel.kernel.provisioner import SpareProvisioner
from tests.kernel.conftest import ROOT, TIMEOUT_S, environ, until
from tests.kernel.test_real import RealKernel

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(
        not entry_points(group="jupyter_client.kernel_provisioners", name="container-kernel-spare"),
        reason="the package is not installed, so Jupyter does not know its provisioner",
    ),
]
SPEC = json.loads((ROOT / "container_kernel/kernelspec/kernel.json").read_text())
ARGV = [sys.executable, *SPEC["argv"][1:]]


@pytest.fixture
def env(tmp_path, home, monkeypatch):
    """The environment of a server that knows our kernelspec."""
    folder = tmp_path / "jupyter" / "kernels" / "container"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(SPEC))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.chdir(tmp_path)  # where such a server writes connection files
    monkeypatch.setattr(provisioner, "_ORDERED_AFTER_S", 0)
    monkeypatch.setattr(SpareProvisioner, "_spare", None)
    (tmp_path / "run").mkdir()
    yield environ(home, tmp_path / "run")
    if SpareProvisioner._spare is not None:
        SpareProvisioner._spare.end()


async def ordered():
    """The process that waits, once there is one."""
    async with asyncio.timeout(TIMEOUT_S):
        while SpareProvisioner._spare is None:
            await asyncio.sleep(0.01)
    return SpareProvisioner._spare._process


class Server(AsyncMultiKernelManager):
    """Starts kernels as a Jupyter server does."""

    async def start(self, folder, env, notebook="a.ipynb"):
        """A kernel's process and a client."""
        env = {**env, "JPY_SESSION_NAME": str(notebook)}
        name = await self.start_kernel(kernel_name="container", cwd=str(folder), env=env)
        manager = self.get_kernel(name)
        client: AsyncKernelClient = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=TIMEOUT_S)
        return manager.provisioner.process, client


async def text(client, code):
    """What a cell printed, or its error."""
    said = []

    def take(message):
        content = message["content"]
        said.append(content.get("text", "") + content.get("evalue", ""))

    await client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=take)
    return "".join(said)


async def closing(server, *clients):
    for client in clients:
        client.stop_channels()
    await server.shutdown_all(now=False)


def test_the_next_kernel_of_a_server_is_the_process_that_waits(env, tmp_path):
    async def main():
        server = Server()
        first, client = await server.start(tmp_path, env)
        waiting = await ordered()
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        nbformat.write(nbformat.v4.new_notebook(), folder / "other.ipynb")
        second, other = await server.start(folder, env, "other.ipynb")
        assert second.pid == waiting.pid != first.pid
        for one in (client, other):
            await text(one, "%base busybox")
        # Its own folder and its own notebook, and nothing of the first one's.
        await text(client, "echo one > file; x=1")
        assert await text(other, "ls; echo [$x]") == "other.ipynb\n[]\n"
        assert "told of no notebook" in await text(client, "%why")
        assert "told of no notebook" not in await text(other, "%why")
        again = await ordered()
        assert again.pid != waiting.pid
        await closing(server, client, other)
        assert (first.poll(), second.poll()) == (0, 0)
        return again

    again = asyncio.run(main())
    assert again.poll() is None
    again.stdin.close()  # as a server's end does
    assert again.wait(TIMEOUT_S) == 0


def test_a_kernel_with_another_environment_is_started_anew(env, tmp_path):
    async def main():
        server = Server()
        _, client = await server.start(tmp_path, env)
        waiting = await ordered()
        process, other = await server.start(tmp_path, {**env, "OTHER": "1"})
        assert process.pid != waiting.pid
        assert waiting.poll() is not None
        await closing(server, client, other)

    asyncio.run(main())


def test_one_that_has_died_is_no_kernel(env, tmp_path):
    async def main():
        server = Server()
        _, client = await server.start(tmp_path, env)
        waiting = await ordered()
        os.kill(waiting.pid, signal.SIGKILL)
        until(lambda: Path(f"/proc/{waiting.pid}/stat").read_text().split()[2] == "Z")
        process, other = await server.start(tmp_path, env)
        assert process.pid != waiting.pid
        await closing(server, client, other)

    asyncio.run(main())


def test_a_program_that_starts_one_kernel_keeps_none(env, tmp_path):
    manager = KernelManager(kernel_name="container")
    manager.start_kernel(cwd=str(tmp_path), env=env)
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT_S)
    client.stop_channels()
    manager.shutdown_kernel()
    assert SpareProvisioner._spare is None


def test_it_ends_with_who_keeps_it(env):
    code = (
        "import os, sys, time\n"
        "from container_kernel.kernel.spare import Spare\n"
        f"spare = Spare({ARGV!r}, dict(os.environ))\n"
        "print(spare._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    pid = int(server.stdout.readline())
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    until(lambda: not Path(f"/proc/{pid}/exe").exists())


TELLS_MODULES = """
import os, signal, sys

def tell(*_):
    with open(os.environ["TELL"] + ".new", "w") as file:
        file.write("\\n".join(sys.modules))
    os.rename(file.name, os.environ["TELL"])

signal.signal(signal.SIGUSR1, tell)
"""


def test_it_has_loaded_all_that_a_start_needs(tmp_path, home, monkeypatch):
    """Else whoever adds an import to the start takes the gain away, little by little."""
    (tmp_path / "sitecustomize.py").write_text(TELLS_MODULES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TELL", str(tmp_path / "modules"))
    for _ in range(2):  # the first one makes the base
        kernel = RealKernel(tmp_path, home, "crun")
        try:
            kernel.run("%base busybox")
            assert kernel.text("echo on") == "on\n"
            (tmp_path / "modules").unlink(missing_ok=True)
            os.kill(kernel.pid, signal.SIGUSR1)  # which is passed on to who runs the cells
            until((tmp_path / "modules").exists)
        finally:
            kernel.close()
    load = "import container_kernel.kernel.__main__, sys; from container_kernel.kernel import spare"
    code = f"{load}; spare.load(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    ).stdout.split()
    of_python = {"runpy", "importlib.util", "importlib._abc", "importlib.machinery", "_sha256"}
    missing = {*(tmp_path / "modules").read_text().split()} - {*loaded} - of_python
    assert not missing, " ".join(missing)
