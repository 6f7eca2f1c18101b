"""A kernel process to talk to, over plain processes of the host."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 90


class LocalManager(KernelManager):
    """Starts ``local_kernel.py``."""

    argv = ()

    @property
    def kernel_spec(self):
        return KernelSpec(argv=list(self.argv), language="python", interrupt_mode="message")


class Kernel:
    """A running kernel and one client, with what tests ask of them."""

    def __init__(self, kind, folder, env=None):
        self.manager = LocalManager()
        script = str(Path(__file__).with_name("local_kernel.py"))
        self.manager.argv = [sys.executable, script, "{connection_file}", str(folder), kind]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        # pytest makes warnings errors, but only its own process's.
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": path, **(env or {})})
        self.client = self.new_client()

    def new_client(self):
        client = self.manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT_S)
        return client

    @property
    def pid(self):
        return self.manager.provisioner.process.pid

    def run(self, code, *, timeout=TIMEOUT_S, **options):
        """Run a cell; its reply's content and its outputs."""
        outputs = []
        reply = self.client.execute_interactive(
            code, output_hook=outputs.append, timeout=timeout, **options
        )
        return reply["content"], outputs

    def text(self, code, **options):
        """What a cell printed and showed, as text."""
        _, outputs = self.run(code, **options)
        parts = []
        for message in outputs:
            content = message["content"]
            parts.append(content.get("text") or content.get("data", {}).get("text/plain", ""))
        return "".join(parts)

    def ask_control(self, msg_type, content=None):
        """Send a request on control; the reply's content."""
        message = self.client.session.msg(msg_type, content or {})
        self.client.control_channel.send(message)
        while True:
            reply = self.client.get_control_msg(timeout=TIMEOUT_S)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return reply

    def reply_to(self, msg_id):
        """The shell reply to a request sent before."""
        while True:
            reply = self.client.get_shell_msg(timeout=TIMEOUT_S)
            if reply["parent_header"].get("msg_id") == msg_id:
                return reply

    def outputs_until_idle(self, msg_id):
        """What is published for a request, up to its idle."""
        found = []
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            found.append(message)
            if message["content"].get("execution_state") == "idle":
                return found

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def types(messages):
    return [message["msg_type"] for message in messages]


def environ(home, runtime_dir, **more):
    """The environment of a kernel as it is here, with a store and a runtime folder of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"CONTAINER_KERNEL_HOME": str(home), "XDG_RUNTIME_DIR": str(runtime_dir)}
    return {**os.environ, "PYTHONPATH": path, **own, **more}


def until(condition, timeout_s=TIMEOUT_S):
    """Wait until ``condition()`` is true; fail when that takes too long."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    return value


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of a store that the tests of one module share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a kernel of a kind, once per module and kind."""
    kernels = {}

    def get(kind):
        if kind not in kernels:
            kernels[kind] = Kernel(kind, tmp_path_factory.mktemp(kind))
        return kernels[kind]

    yield get
    for kernel in kernels.values():
        kernel.close()


@pytest.fixture
def fresh(tmp_path):
    """Start a kernel of a kind for one test alone."""
    kernels = []

    def get(kind, **env):
        kernels.append(Kernel(kind, tmp_path, env))
        return kernels[-1]

    yield get
    for kernel in kernels:
        kernel.close()
