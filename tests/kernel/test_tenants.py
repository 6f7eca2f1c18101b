"""What is around a notebook is not trusted: its folder, PATH, its metadata, other users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from container_kernel.runtime.host import find_tool
from tests.kernel.conftest import ROOT, LocalManager, environ
from tests.kernel.test_real import RealKernel

pytestmark = pytest.mark.privileged
ARGV = json.loads((ROOT / "container_kernel/kernelspec/kernel.json").read_text())["argv"]
FAKES = (
    *("crun", "runc", "newuidmap", "newgidmap", "catatonit", "pasta", "mmdebstrap", "busybox"),
    *("cp", "rm", "ip", "nsenter", "unshare", "tar", "sh", "python3"),
)
MODULES = ("json", "socket", "sitecustomize", "usercustomize", "zmq", "container_kernel_config")


class PlainKernel(RealKernel):
    """Started as Jupyter starts the kernelspec, with this environment."""

    def __init__(self, folder, env):
        self.manager = LocalManager()
        self.manager.argv = [sys.executable, *ARGV[1:]]
        self.runtime_dir = tempfile.mkdtemp(prefix="ck-run-")
        self.manager.start_kernel(env=env, cwd=str(folder))
        self.client = self.new_client()


def works(kernel):
    """Do a bit of everything."""
    for code in ("%base busybox", "%%build\necho built > /built", "echo > ~/scratch", "%freeze"):
        reply, _ = kernel.run(code)
        assert reply["status"] == "ok", reply
    assert kernel.text("cat /built").endswith("built\n")


def test_row_172_nothing_of_the_notebooks_folder_is_run_or_imported(tmp_path, oci_runtime):
    folder, canary = tmp_path / "notebook", tmp_path / "canary"
    package = folder / "container_kernel/kernel"
    package.mkdir(parents=True)
    for name in FAKES:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {canary}\nexit 1\n")
        (folder / name).chmod(0o755)
    evil = "open({!r}, 'a').write({!r})\n"
    for name in MODULES:
        (folder / f"{name}.py").write_text(evil.format(str(canary), name))
    for file in (package.parent / "__init__.py", package / "__init__.py", package / "__main__.py"):
        file.write_text(evil.format(str(canary), "package"))
    env = environ(tmp_path / "home", tmp_path, CONTAINER_KERNEL_RUNTIME=oci_runtime)
    env["PYTHONPATH"] = str(ROOT)  # without an empty entry, which would be that folder
    env["PATH"] = f"{folder}:.:{env['PATH']}"
    kernel = PlainKernel(folder, env)
    try:
        works(kernel)
    finally:
        kernel.close()
    assert not canary.exists(), canary.read_text()


def test_row_173_what_a_notebooks_metadata_asks_for_is_not_given(tmp_path, home, oci_runtime):
    wishes = {
        "net": "host", "network": "host", "privileged": True, "as_root": True, "user": "0",
        "mounts": [{"source": "/etc", "target": "/host"}], "mount": "/etc:/host:rw",
        "image": "other", "devices": ["/dev/kmsg"], "memory_bytes": 1 << 60,
    }  # fmt: skip
    metadata = {"container_kernel": wishes, "container-kernel": wishes, **wishes}
    cell = {"cell_type": "code", "id": "a", "metadata": metadata, "source": "%base busybox"}
    notebook = tmp_path / "n.ipynb"
    notebook.write_text(
        json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
    )
    kernel = RealKernel(tmp_path, home, oci_runtime, notebook=str(notebook))
    try:
        kernel.run("%base busybox")
        message = kernel.client.session.msg(
            "execute_request",
            {"code": "ls /sys/class/net; ls -d /host; id -u; ls /dev/kmsg", "silent": False},
            metadata=metadata,
        )
        kernel.client.shell_channel.send(message)
        said = ""
        while True:
            got = kernel.client.get_iopub_msg(timeout=20)
            if got["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                said += got["content"].get("text", "")
                if got["content"].get("execution_state") == "idle":
                    break
    finally:
        kernel.close()
    assert said.split("\n")[0] == "lo"
    assert "\n0\n" not in said or os.getuid()
    assert all(f"{path}: No such file" in said for path in ("/host", "/dev/kmsg"))


@pytest.fixture
def two(tmp_path, oci_runtime):
    """Two kernels of one notebook, each as its own user would start it, with all defaults."""
    folder = tmp_path / "shared"
    folder.mkdir()
    kernels, homes = [], []
    for name in ("alice", "bob"):
        home = tmp_path / name
        home.mkdir(mode=0o700)
        env = environ(home, home, HOME=str(home), CONTAINER_KERNEL_RUNTIME=oci_runtime)
        for variable in ("CONTAINER_KERNEL_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"):
            env.pop(variable, None)
        kernels.append(PlainKernel(folder, env))
        homes.append(home)
    yield kernels, homes
    for kernel in kernels:
        kernel.close()


def test_row_170_two_users_of_one_notebook_share_nothing(two):
    (alice, bob), homes = two
    for kernel in (alice, bob):
        works(kernel)
        kernel.run("%publish 0:8888")
        kernel.run("sleep 1000 &")
    seen = [_everything(kernel) for kernel in (alice, bob)]
    for one, other in zip(*seen, strict=True):
        assert one
        assert not one & other
    assert "sleep 1000" in alice.text("ps")
    assert alice.text("ps").count("sleep 1000") == 1
    assert "1 more" not in bob.text(f"ls {homes[0]} 2>/dev/null && echo 1 more")


def _everything(kernel):
    """What a kernel has that somebody else could meet: namespaces, run folders, ports."""
    pid = kernel.manager.provisioner.pid
    tree = subprocess.run(
        [find_tool("ps"), "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout.split()
    namespaces = {os.readlink(f"/proc/{tree[0]}/ns/{kind}") for kind in ("mnt", "pid")}
    inside = {kernel.text(f"readlink /proc/self/ns/{kind}") for kind in ("net", "ipc", "uts")}
    held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if _is_lock(fd)}
    port = {kernel.text("%publish")}
    return namespaces, inside, held, port


def _is_lock(fd):
    try:
        return os.readlink(fd).endswith("/lock")
    except OSError:
        return False


def test_row_170_another_user_gets_into_nothing_of_ours(two, entered):
    if entered.idmap.squash:
        pytest.skip("with a single id there is nobody else to be")
    (alice, _), homes = two
    works(alice)
    ours = {Path(one).parent for one in _everything(alice)[2]}
    for folder in (*ours, homes[0] / ".local/share/container-kernel", *ours):
        code = f"import os; os.listdir({str(folder)!r})"
        tried = subprocess.run(
            [find_tool("python3"), "-c", code], user=65534, group=65534, extra_groups=[],
            capture_output=True, text=True,
        )  # fmt: skip
        assert "PermissionError" in tried.stderr, tried
