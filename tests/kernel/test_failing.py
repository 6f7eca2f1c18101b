"""A failed step is a place to stand: looked at, run again, thrown away; never a layer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from container_kernel.store.check import check
from container_kernel.store.collect import collect
from container_kernel.store.store import Store
from tests.kernel.conftest import environ, until
from tests.kernel.test_real import RealKernel

pytestmark = pytest.mark.privileged
BROKEN = """%%build --name broken
mkdir -p /opt/app && cd /opt/app
echo "half built" > log; rm /bin/vi; echo root-only > /root/secret; chmod 600 /root/secret
test -f /opt/mended
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, oci_runtime):
    """A store of each runtime's own: what one has built, the other is not to find."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, oci_runtime):
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "n.ipynb").write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4}))
    return folder


@pytest.fixture(scope="module")
def started(folder, home, oci_runtime):
    kernel = RealKernel(folder, home, oci_runtime, str(folder / "n.ipynb"))
    assert kernel.run("%base busybox\n%workdir /opt")[0]["status"] == "ok"
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(started):
    yield started
    started.run("%discard")


@pytest.fixture
def store(home, entered):
    store = Store(home, entered.idmap, userxattr=entered.is_rootless)
    yield store
    store.close()


def failure(kernel, code):
    reply, _ = kernel.run(code)
    assert reply["status"] == "error", code
    return reply["evalue"]


def run_as(kernel, cell_id, code):
    """Run a cell as a front end does that knows its cells; its reply."""
    session = kernel.client.session
    message = session.msg("execute_request", {"code": code, "silent": False})
    message["metadata"]["cellId"] = cell_id
    kernel.client.shell_channel.send(message)
    return kernel.reply_to(message["header"]["msg_id"])["content"]


def kept(home):
    return [*(home / "active").glob("*/kept.json")]


def test_one_looks_around_in_what_the_failed_step_left(kernel):
    kernel.run("kept=variable; echo session > /tmp/mine")
    reply, outputs = kernel.run(BROKEN)
    assert reply["status"] == "error"
    cards = [m["content"]["data"] for m in outputs if "data" in m["content"]]
    assert "%shell --failed" in cards[-1]["text/plain"]
    assert "%shell --failed" in cards[-1]["text/html"]
    assert kernel.text("%shell --failed cat app/log /root/secret") == "half built\nroot-only\n"
    assert kernel.text("%shell --failed id -u") == "0\n"
    assert kernel.text("%%run --failed\npwd; test -e /bin/vi || echo removed") == "/opt\nremoved\n"
    assert kernel.text("%%run --failed cat\nthe body") == "the body\n"
    shown = kernel.text("%shell --failed")
    assert "/opt/app/log" in shown
    assert "%retry" in shown
    # The session goes on where it was: on the image without the step, with what it knew.
    assert kernel.text("echo $kept; cat /tmp/mine; ls /opt/app || :") == (
        "variable\nsession\nls: /opt/app: No such file or directory\n"
    )
    assert kernel.text("%shell cat /tmp/mine") == "session\n"


def test_a_look_has_no_network_and_leaves_the_tree_as_the_command_left_it(kernel):
    failure(kernel, BROKEN)
    assert kernel.text("%shell --failed ls /sys/class/net") == "lo\n"
    kernel.run("%shell --failed touch /opt/mended")
    assert "exit code 1" in failure(kernel, "%shell --failed test -e /opt/mended")
    assert "--failed" in failure(kernel, "%%run --failed --image busybox\ntrue")


def test_only_the_last_failed_step_is_kept_until_it_is_discarded(kernel, home):
    failure(kernel, BROKEN)
    failure(kernel, "%%build\necho other > /other; false")
    assert len(kept(home)) == 1
    assert kernel.text("%shell --failed cat /other") == "other\n"
    assert "discarded" in kernel.text("%discard")
    assert kept(home) == []
    assert "no failed step" in failure(kernel, "%discard")


def test_an_interrupted_step_is_kept_too(kernel):
    msg_id = kernel.client.execute("%%build\necho so far > /opt/far; echo be''gun; sleep 60")
    until(lambda: "begun" in str(kernel.client.get_iopub_msg(timeout=10)["content"]))
    kernel.manager.interrupt_kernel()
    assert kernel.reply_to(msg_id)["content"]["ename"] == "Interrupted"
    assert kernel.text("%shell --failed cat far") == "so far\n"


def test_the_command_line_finds_it_while_the_kernel_runs(kernel, folder, home, oci_runtime):
    def shell(*words):
        argv = [sys.executable, "-m", "container_kernel", "shell", "--failed", "n.ipynb", *words]
        more = {"CONTAINER_KERNEL_RUNTIME": oci_runtime}
        env = environ(home, kernel.runtime_dir, **more)
        return subprocess.run(
            argv, cwd=folder, env=env, capture_output=True, text=True, check=False
        )

    none = shell("--", "ls")
    assert none.returncode == 1
    assert "no running kernel of n.ipynb has a failed step" in none.stderr
    failure(kernel, BROKEN)
    assert shell("--", "cat", "app/log").stdout == "half built\n"
    kernel.run("%discard")
    assert shell("--", "ls").returncode == 1


def test_a_tree_with_a_secret_in_it_is_not_kept(tmp_path, home, oci_runtime, monkeypatch):
    monkeypatch.setenv("CONTAINER_KERNEL_SECRET_TOKEN", "correct horse battery")
    kernel = RealKernel(tmp_path, home, oci_runtime)
    try:
        kernel.run("%base busybox")
        failure(kernel, "%%build --secret TOKEN\ncp /run/secrets/TOKEN /copy; false")
        assert "no failed step" in failure(kernel, "%shell --failed cat /copy")
        assert kept(home) == []
    finally:
        kernel.close()


def test_a_step_is_run_again_from_the_clean_parent(kernel, home):
    failure(kernel, BROKEN)
    assert "broken" in failure(kernel, "%retry")
    assert len(kept(home)) == 1
    kernel.run("%%build\nmkdir -p /opt; touch /opt/mended")  # what failed is in no chain yet
    reply, _ = kernel.run("%retry")
    assert reply["status"] == "ok"
    assert kernel.text("cat /opt/app/log; test -e /opt/mended && echo both") == "half built\nboth\n"
    assert kept(home) == []
    assert "no build cell has failed" in failure(kernel, "%retry")
    assert "no failed step" in failure(kernel, "%shell --failed ls")


def test_it_is_no_layer_and_is_swept_when_its_kernel_is_gone(started, home, store):
    before = {snapshot.chain_id for snapshot in store.snapshots.walk()}
    failure(started, "%%build\necho so far > /far; false")
    (found,) = kept(home)
    # Neither a check nor a collection takes it for anything, or takes it away.
    assert not [f for f in check(store, full=True) if f.weight == "damage"]
    collect(store)
    store.snapshots.sweep()
    assert {snapshot.chain_id for snapshot in store.snapshots.walk()} == before
    assert started.text("%shell --failed cat /far") == "so far\n"
    os.kill(started.pid, signal.SIGKILL)
    started.manager.provisioner.process.wait()

    def is_swept():
        store.snapshots.sweep()
        return not found.exists()

    until(is_swept)


def test_a_stale_step_that_fails_is_kept_and_run_again(folder, home, oci_runtime):
    """It is built for a run cell, which stands in no build cell that could be run again."""
    kernel = RealKernel(folder, home, oci_runtime)
    try:
        kernel.run("%base busybox")
        cells = [("a", "echo one > /word"), ("b", "grep one /word"), ("a", "echo two > /word")]
        for cell_id, code in cells:
            assert run_as(kernel, cell_id, f"%%build\n{code}")["status"] == "ok"
        failure(kernel, "cat /word")
        assert kernel.text("%shell --failed cat /word") == "two\n"
        assert "grep one" in failure(kernel, "%retry")
    finally:
        kernel.close()
