"""The kernel as its kernelspec starts it, with real containers: the shell agent on busybox."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from functools import partial

import pytest
import zmq

from tests.kernel.conftest import (
    ROOT,
    TIMEOUT_S,
    Kernel,
    LocalManager,
    environ,
    types,
    until,
)

pytestmark = pytest.mark.privileged
ARGV = [sys.executable, "-m", "container_kernel.kernel", "-f", "{connection_file}"]


class RealKernel(Kernel):
    """Started in ``folder``, on a store of the test run's."""

    def __init__(self, folder, home, oci_runtime, notebook=None):
        self.manager = LocalManager()
        self.manager.argv = ARGV
        self.runtime_dir = tempfile.mkdtemp(prefix="ck-run-")
        env = environ(home, self.runtime_dir, CONTAINER_KERNEL_RUNTIME=oci_runtime)
        env |= {"JPY_SESSION_NAME": notebook} if notebook else {}
        self.manager.start_kernel(env=env, cwd=str(folder))
        self.client = self.new_client()

    def close(self):
        super().close()
        shutil.rmtree(self.runtime_dir, ignore_errors=True)


@pytest.fixture
def kernel(tmp_path, home, oci_runtime):
    kernel = RealKernel(tmp_path, home, oci_runtime)
    reply, _ = kernel.run("%base busybox")
    assert reply["status"] == "ok", reply
    yield kernel
    kernel.close()


def test_cells_run_in_the_image(kernel, tmp_path):
    kernel.run("%%build\necho frozen > /note")
    assert kernel.text("cat /note; pwd").split() == ["frozen", "/work"]


def test_the_notebooks_folder_is_there_and_its_files_are_ours(kernel, tmp_path):
    assert kernel.run("echo kept > file")[0]["status"] == "ok"
    assert (tmp_path / "file").read_text() == "kept\n"
    assert (tmp_path / "file").stat().st_uid == os.getuid()


def test_there_is_no_network_and_no_host(kernel):
    assert "lo" in kernel.text("ls /sys/class/net")
    assert kernel.text("ls /sys/class/net").split() == ["lo"]
    assert kernel.run(f"ls {ROOT}")[0]["status"] == "error"


def test_sh_runs_beside_the_session(kernel):
    kernel.run("x=5; echo in-scratch > /tmp/s")
    assert kernel.text("%%sh\ncat /tmp/s; echo [$x]").split() == ["in-scratch", "[]"]
    reply, _ = kernel.run("%%sh\nexit 4")
    assert (reply["ename"], "exit code 4" in reply["evalue"]) == ("CommandFailed", True)
    assert kernel.text("echo $x").strip() == "5"


def test_sh_is_interrupted(kernel):
    kernel.run("true")
    msg_id = kernel.client.execute("%%sh\ntrap 'echo cleaned; exit 7' INT; echo on; sleep 30")
    until(lambda: kernel.client.get_iopub_msg(timeout=10)["msg_type"] == "stream")
    time.sleep(0.3)  # a child that is not yet a program of its own may miss it
    kernel.ask_control("interrupt_request")
    assert kernel.reply_to(msg_id)["content"]["ename"] == "Interrupted"
    said = [
        m["content"]["text"] for m in kernel.outputs_until_idle(msg_id) if "text" in m["content"]
    ]
    assert "cleaned" in "".join(said)


def test_run_has_a_fresh_container_and_input(kernel):
    kernel.run("echo scratch > /tmp/s")
    assert kernel.text("%%run cat\nthe body").strip() == "the body"
    assert kernel.run("%%run\ncat /tmp/s")[0]["status"] == "error"
    reply, _ = kernel.run("%%run --timeout 0.3s\nsleep 30")
    assert "0.3 s" in reply["evalue"]


def test_death_keeps_the_scratch(kernel):
    kernel.run("echo here > /tmp/s")
    reply, outputs = kernel.run("exit 9")
    assert "exit code 9" in reply["evalue"]
    assert types(outputs) == ["status", "execute_input", "error", "status"]
    assert kernel.text("cat /tmp/s").strip() == "here"


def test_background_processes_that_end_leave_the_session(kernel):
    """Each interrupts the shell as it waits for a cell: busybox gives up after 50 of them."""
    kernel.run("x=5; for i in $(seq 60); do sleep 0.$((100 + 10 * i)) & done")
    time.sleep(1.5)
    assert kernel.text("echo [$x]").strip() == "[5]"
    assert kernel.text("echo end >&2").strip() == "end"


def test_layers_tags_and_freeze(kernel):
    kernel.run("echo x > /tmp/../srv-file || echo x > /work/x; echo y > ~/y")
    assert "%base busybox" in kernel.text("%layers")
    assert kernel.run("%tag kept:1")[0]["status"] == "ok"
    assert "kept:1" in kernel.text("%images")
    assert "frozen:1" in kernel.text("%freeze frozen:1")
    assert kernel.run("%use nowhere")[0]["status"] == "error"


def test_two_stages_keep_their_sessions(kernel):
    kernel.run("x=first")
    kernel.run("%base busybox --as other")
    assert kernel.text("echo [$x]").strip() == "[]"
    kernel.run("%use main")
    assert kernel.text("echo [$x]").strip() == "[first]"


NOTED = ["%base busybox", "%%build\necho frozen > /note"]


@pytest.fixture
def open_notebook(tmp_path, home, oci_runtime):
    """Kernels of one notebook with a base and a note in it, one after the other."""
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [cell | {"id": f"c{n}", "source": text} for n, text in enumerate(NOTED)]
    document = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "note.ipynb").write_text(json.dumps(document))
    opened = []

    def close():
        while opened:
            opened.pop().close()

    def open_notebook(kind=RealKernel, notebook="note.ipynb"):
        close()
        opened.append(kind(tmp_path, home, oci_runtime, notebook=notebook))
        return opened[-1]

    yield open_notebook
    close()


def test_a_notebook_opened_again_has_its_environment_at_once(open_notebook):
    first = open_notebook()
    for code in NOTED:
        first.run(code)
    again = open_notebook()
    assert again.text("cat /note").strip() == "frozen"


def language(kernel):
    info = kernel.ask_control("kernel_info_request")["content"]
    return info["language_info"]["name"]


def test_a_notebook_opened_again_is_of_its_language_at_once(open_notebook):
    first = open_notebook()
    first.run("%base busybox")
    first.run("true")
    assert language(open_notebook()) == "bash"


def test_what_is_only_guessed_has_no_word_in_what_the_kernel_is(open_notebook):
    """Without a notebook, what ran last is started; what it is told by no cell is not told."""
    plain = partial(open_notebook, notebook=None)
    first = plain()
    first.run("%base busybox")
    first.run("true")
    again = plain()
    time.sleep(1)  # long enough for what was guessed to be up
    assert language(again) == "python"
    assert again.run("true")[0]["ename"] == "NoBase"
    again.run("%base busybox")
    assert again.text("echo here").strip() == "here"
    assert language(again) == "bash"


class Hasty(RealKernel):
    """Its client does not wait for anything."""

    def new_client(self):
        client = self.manager.blocking_client()
        client.start_channels()
        self.shell = client.context.socket(zmq.DEALER)
        self.shell.linger = 0
        self.shell.reconnect_ivl = 1  # by default it looks every 100 ms, and is never so early
        self.shell.connect(client._make_url("shell"))
        content = {"code": "cat /note", "silent": False, "store_history": True}
        client.session.send(self.shell, "execute_request", content)
        return client

    def first_reply(self):
        with self.shell as socket:
            assert socket.poll(TIMEOUT_S * 1000)
            return self.client.session.recv(socket, mode=0)[1]["content"]


def test_a_cell_sent_before_the_kernel_listens_has_the_environment_too(open_notebook):
    first = open_notebook()
    for code in NOTED:
        first.run(code)
    again = open_notebook(Hasty)
    assert again.first_reply()["status"] == "ok"


def test_a_base_that_changed_since_is_the_one_that_runs(open_notebook):
    first = open_notebook()
    first.run("%base busybox")
    first.run("%env WORD=one")
    assert first.text("echo $WORD").strip() == "one"
    again = open_notebook()
    again.run("%base busybox")
    again.run("%env WORD=two")
    assert again.text("echo $WORD").strip() == "two"


def test_an_environment_is_exported_and_listed(kernel, tmp_path):
    assert "written to" in kernel.text("%export dockerfile --stage main")
    assert "FROM base AS main" in (tmp_path / "dockerfile/Dockerfile").read_text()
    assert "has 0 packages" in kernel.text("%sbom")
    assert (tmp_path / "sbom.spdx.json").is_file()
    reply, _ = kernel.run("%export dokerfile")
    assert (reply["status"], reply["ename"]) == ("error", "BadArguments")


def test_a_session_that_ended_between_cells_is_told_of(kernel):
    kernel.run("x=5; (sleep 0.3; kill -9 $$) >/dev/null 2>&1 &")
    time.sleep(1.5)
    said = kernel.text("echo [$x]")
    assert "without earlier variables: the one before" in said
    assert "[]" in said
    assert "the one before" not in kernel.text("echo again")
