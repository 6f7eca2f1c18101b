"""Whatever is killed, nothing of a kernel is left: no process, namespace, mount, cgroup or file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from tests.kernel.conftest import TIMEOUT_S, Kernel, environ, until
from tests.kernel.processes import (
    all_processes,
    bury,
    command,
    descendants,
    descriptors,
    inode,
    is_running,
    namespaces,
    own_cgroups,
    state,
)

pytestmark = pytest.mark.privileged
SERVER = """
import os, resource, subprocess, sys, time
if files := os.environ.get("TEST_FILES"):
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
kernel = subprocess.Popen(sys.argv[1:], env={**os.environ, "JPY_PARENT_PID": str(os.getpid())})
print(kernel.pid, flush=True)
kernel.wait()
"""
LEFT_WITHIN_S = 10


class ServedKernel(Kernel):
    """A kernel, and the process that serves it, which can be killed too."""

    def __init__(self, folder, home, oci_runtime, **env):
        self.runtime_dir = Path(env.get("XDG_RUNTIME_DIR") or tempfile.mkdtemp(prefix="ck-run-"))
        file, _ = write_connection_file(
            str(folder / "kernel.json"), transport="ipc", ip=f"{self.runtime_dir}/{folder.name}"
        )
        env |= {"CONTAINER_KERNEL_RUNTIME": oci_runtime}
        argv = [sys.executable, "-c", SERVER]
        argv += [sys.executable, "-m", "container_kernel.kernel", "-f", file]
        self.server = subprocess.Popen(
            argv,
            env=environ(home, self.runtime_dir, **env),
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.supervisor = int(self.server.stdout.readline())
        self.client = BlockingKernelClient(connection_file=file)
        self.client.load_connection_file()
        # A client without a manager would take a heartbeat that is a second late for the end.
        self.client.start_channels(hb=False)
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        own = f"{self.supervisor}-*"
        (self.run_dir,) = (self.runtime_dir / "container-kernel").glob(own)
        self.family = []

    @property
    def janitors(self):
        """Those that hold the lock of the run folder open, and belong to nobody."""
        found = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit())
        return [
            pid for pid in found if command(pid) == "container-kernel-janitor" and self._has(pid)
        ]

    def _has(self, pid):
        return f"{self.run_dir}/lock" in descriptors(pid)

    def work(self):
        """Have processes, mounts and cgroups; remember them."""
        assert self.run("%base busybox")[0]["status"] == "ok"
        self.run("sleep 1000 & sleep 1000 &")
        until(lambda: self.janitors)
        self.family = descendants(self.supervisor)
        assert len(self.family) >= 6  # supervisor, reaper, worker, init, sh, sleep
        self.janitor = self.janitors[0]
        self.namespaces = set.union(*map(namespaces, self.family)) - namespaces("self")
        self.inside = namespaces(self.family[-1], ["pid"])
        self.cgroups = set.union(*map(own_cgroups, self.family))
        assert self.namespaces

    def kill(self, *pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # they take each other along
                os.kill(pid, signal.SIGKILL)

    def left(self):
        """What there still is of it."""
        running = [pid for pid in (*self.family, self.janitor) if is_running(pid)]
        inside = [p for p in all_processes() if is_running(p) and namespaces(p) & self.namespaces]
        mounts = [m for m in Path("/proc/mounts").read_text().splitlines() if self._is_ours(m)]
        groups = [place for place, number in self.cgroups if inode(place) == number]
        folders = [self.run_dir] if self.run_dir.exists() else []
        return [*running, *inside, *mounts, *groups, *folders]

    def leaves_nothing(self, within_s=LEFT_WITHIN_S):
        with contextlib.suppress(AssertionError):
            until(lambda: not self.left(), within_s)
        return self.left() == []

    def _is_ours(self, mount):
        return str(self.runtime_dir) in mount

    def close(self):
        self.client.stop_channels()
        self.kill(self.server.pid, *self.family)
        self.server.wait()
        self.server.stdout.close()
        bury(self.family)
        shutil.rmtree(self.runtime_dir, ignore_errors=True)


@pytest.fixture
def kernel(tmp_path, home, oci_runtime):
    kernel = ServedKernel(tmp_path, home, oci_runtime)
    kernel.work()
    yield kernel
    kernel.close()


SUPERVISOR, REAPER, WORKER = range(3)


@pytest.mark.parametrize(
    "victims",
    [[SUPERVISOR], [REAPER], [WORKER], [WORKER, REAPER], [SUPERVISOR, WORKER], ["all"]],
    ids=lambda victims: "+".join(map(str, victims)),
)
@pytest.mark.parametrize("with_server", [False, True], ids=["kernel", "kernel and server"])
def test_row_167_nothing_is_left_after_kill(kernel, victims, with_server):
    pids = kernel.family if victims == ["all"] else [kernel.family[one] for one in victims]
    kernel.kill(*([kernel.server.pid] if with_server else []), *pids)
    assert kernel.leaves_nothing()


def test_row_167_nothing_is_left_after_the_server_alone_is_killed(kernel):
    kernel.kill(kernel.server.pid)
    assert kernel.leaves_nothing()


def test_what_a_killed_container_was_writing_is_left_to_nobody(kernel, home):
    kernel.kill(*kernel.family)
    assert kernel.leaves_nothing()
    again = ServedKernel(home, home, "crun")  # the store sweeps with the next one that opens it
    again.work()
    until(lambda: len(os.listdir(home / "active")) == 1, LEFT_WITHIN_S)
    again.close()


def test_where_the_run_folder_was_wiped_as_by_a_reboot_nothing_old_counts(kernel, home):
    kernel.kill(kernel.janitor, *kernel.family)
    until(lambda: not any(map(is_running, (kernel.janitor, *kernel.family))), LEFT_WITHIN_S)
    shutil.rmtree(kernel.runtime_dir / "container-kernel")
    again = ServedKernel(home, home, "crun", XDG_RUNTIME_DIR=str(kernel.runtime_dir))
    again.work()
    until(lambda: len(os.listdir(home / "active")) == 1, LEFT_WITHIN_S)
    again.close()
    for place, _ in sorted(kernel.cgroups, reverse=True):  # a reboot would have taken these along
        with contextlib.suppress(OSError):
            os.rmdir(place)


@pytest.mark.parametrize("stopped", [SUPERVISOR, REAPER, WORKER, -1])
def test_a_process_that_stood_still_goes_on(kernel, stopped):
    pid = kernel.family[stopped]
    os.kill(pid, signal.SIGSTOP)
    kernel.client.execute("echo asked")
    time.sleep(1.5)  # longer than the supervisor's look at its parent
    os.kill(pid, signal.SIGCONT)
    assert kernel.run("echo on")[0]["status"] == "ok"


def test_a_kernel_that_is_shut_down_has_swept_before_it_has_ended(kernel):
    kernel.client.shutdown()
    kernel.server.wait(TIMEOUT_S)
    assert not kernel.run_dir.exists()
    assert kernel.leaves_nothing(within_s=2)


def test_a_kernel_whose_janitor_was_killed_sweeps_when_it_is_shut_down(kernel):
    kernel.kill(kernel.janitor)
    kernel.client.shutdown()
    kernel.server.wait(TIMEOUT_S)
    assert not kernel.run_dir.exists()


def test_the_janitor_is_apart_from_what_it_waits_for(kernel):
    """Who ends a tree, a session, a command line ends not it; who reads a pipe does not wait."""
    janitor = kernel.janitor
    assert janitor not in kernel.family
    assert os.getsid(janitor) not in {os.getsid(kernel.supervisor), os.getsid(0)}
    lock = f"{kernel.run_dir}/lock"
    held = descriptors(janitor)
    assert sorted(one for one in held if not one.startswith(("pipe:", "user:"))) == [
        *["/dev/null"] * 3,
        lock,
    ]
    assert sum(one.startswith("pipe:") for one in held) == 1  # its own, to say that it has ended
    assert b"kernel.json" not in Path(f"/proc/{janitor}/cmdline").read_bytes()
    assert os.readlink(f"/proc/{janitor}/cwd") == "/"


def test_the_janitor_stays_when_it_is_asked_to_end(kernel):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(kernel.janitor, number)
    kernel.kill(*kernel.family)
    assert kernel.leaves_nothing()


def test_nothing_is_left_of_a_kernel_that_is_killed_while_it_stands_still(
    tmp_path, home, oci_runtime
):
    setting = "c.ContainerKernel.idle_freeze = 0.5"
    (tmp_path / "container_kernel_config.py").write_text(setting)
    kernel = ServedKernel(tmp_path, home, oci_runtime, JUPYTER_CONFIG_DIR=str(tmp_path))
    kernel.work()
    inside = [pid for pid in kernel.family if namespaces(pid, ["pid"]) & kernel.inside]
    until(lambda: all(state(pid) == "T" for pid in inside))
    kernel.kill(*kernel.family)
    assert kernel.leaves_nothing()
    kernel.close()


def run_folders(runtime_dir):
    """Those of processes that live, or that nobody swept; not the files that all of them share."""
    return [path for path in Path(runtime_dir, "container-kernel").iterdir() if path.is_dir()]


OWNER = """
import time
from container_kernel import Environment
with Environment("busybox") as environment:
    print(environment.cell("echo $PPID; sleep 1000 &").stdout, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with its kernel"])
def test_nothing_is_left_of_what_a_program_started_that_is_killed(
    tmp_path, home, oci_runtime, together
):
    runtime_dir = tempfile.mkdtemp(prefix="ck-run-")
    env = {"CONTAINER_KERNEL_RUNTIME": oci_runtime, "TMPDIR": str(tmp_path)}
    env = environ(home, runtime_dir, **env)
    argv = [sys.executable, "-c", OWNER]
    with subprocess.Popen(argv, env=env, cwd=tmp_path, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline()
        family = descendants(owner.pid)
        assert len(run_folders(runtime_dir)) == 2
        for pid in family if together else family[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, family)), LEFT_WITHIN_S)
    bury(family)
    until(lambda: not run_folders(runtime_dir), LEFT_WITHIN_S)
    assert os.listdir(tmp_path) == []
    shutil.rmtree(runtime_dir)


def test_kernels_that_are_killed_together_leave_nothing_to_each_other(tmp_path, home, oci_runtime):
    runtime_dir = tempfile.mkdtemp(prefix="ck-run-")
    folders = [tmp_path / name for name in "abc"]
    kernels = []
    for folder in folders:
        folder.mkdir()
        kernels.append(ServedKernel(folder, home, oci_runtime, XDG_RUNTIME_DIR=runtime_dir))
    for kernel in kernels:
        kernel.work()
    for kernel in kernels:
        kernel.kill(kernel.server.pid, *kernel.family)
    assert all(kernel.leaves_nothing() for kernel in kernels)
    for kernel in kernels:
        kernel.close()
