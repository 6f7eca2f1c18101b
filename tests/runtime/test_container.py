"""What every container promises, on each OCI runtime, with the least of images."""

import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.build.execute import follow
from container_kernel.errors import HostError, Interrupted, RuntimeFailed
from container_kernel.runtime import container as containers
from container_kernel.runtime import processes, profile, relimit, sealed, sweeper
from container_kernel.runtime.bundle import ContainerSpec, Process
from container_kernel.runtime.host import find_tool
from container_kernel.runtime.limits import Limits
from tests.kernel.conftest import until

pytestmark = pytest.mark.privileged
FEW = Limits(pids=64)
TWENTY = Limits(pids=20)
BOMB = "for i in $(seq 100); do sleep 2 & done; echo"


@pytest.fixture
def start(host, shared_store, rootfs):
    """Start a shell script as a run cell's process would be."""

    def start(script, *, uid=None, limits=FEW, init=True, **more):
        uid = (0 if shared_store.idmap.squash else 1000) if uid is None else uid
        process = Process(args=("/bin/sh", "-c", script), env={"PATH": "/bin"}, uid=uid, gid=uid)
        spec = ContainerSpec(
            rootfs=rootfs.path,
            process=process,
            idmap=shared_store.idmap,
            limits=limits,
            pretend_ownership=shared_store.idmap.squash,
            **more,
        )
        return host.runtime.run(spec, merge_output=True, init=init)

    return start


@pytest.fixture
def run(start):
    """Run a shell script to its end; its exit and its output."""

    def run(script, *, cancel=None, **more):
        said = []
        exit_ = follow(start(script, **more), said.append, cancel or Cancel())
        return exit_, "".join(said)

    return run


@pytest.fixture
def status(run):
    """/proc/self/status inside, as a dict."""
    _, text = run("cat /proc/self/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_output_and_exit_code_arrive(run):
    exit_, said = run("echo out; echo err >&2; exit 7")
    assert (exit_.code, said) == (7, "out\nerr\n")


@pytest.mark.parametrize("init", [True, False])
def test_a_killed_process_says_its_signal(run, init):
    exit_, _ = run("kill -SEGV $$; sleep 5" if init else "exec sh -c 'kill -KILL $$'", init=init)
    assert exit_.signal == 11 if init else exit_.code == 0 or exit_.signal


def test_a_missing_program_is_an_error_that_names_it(host, shared_store, rootfs):
    spec = ContainerSpec(
        rootfs=rootfs.path, process=Process(args=("/no/such",)), idmap=shared_store.idmap
    )
    with pytest.raises(RuntimeFailed, match="/no/such"):
        host.runtime.run(spec, init=False)


def test_run_cells_hold_no_capability(status):
    masks = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert {mask.strip("0") for mask in masks.values()} == {""}


def test_no_new_privileges_and_a_filter(status):
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("kind", ["pid", "mnt", "ipc", "uts", "net", "cgroup"])
def test_namespaces_are_its_own(run, kind):
    _, said = run(f"readlink /proc/self/ns/{kind}")
    assert said.strip() != os.readlink(f"/proc/self/ns/{kind}")


def test_no_network_but_loopback(run):
    _, said = run("ip -o link | wc -l; ip route | wc -l")
    assert said.split() == ["1", "0"]


def test_only_the_standard_descriptors_are_open(run):
    leaked = [os.open("/", os.O_RDONLY) for _ in range(20)]
    for fd in leaked:
        os.set_inheritable(fd, True)
    _, said = run("ls /proc/self/fd")
    for fd in leaked:
        os.close(fd)
    assert set(said.split()) <= {"0", "1", "2", "3"}  # 3 is the folder ls itself reads


@pytest.mark.parametrize("path", profile.MASKED_PATHS)
def test_masked_paths_show_nothing(run, path):
    _, said = run(f"[ -e {path} ] || exit 0; cat {path}/* {path} 2>/dev/null | wc -c")
    assert said.strip() in ("", "0")


@pytest.mark.parametrize("path", profile.READONLY_PATHS)
def test_readonly_paths_cannot_be_written(run, path):
    exit_, _ = run(f"[ -e {path} ] || exit 1; touch {path}/x 2>/dev/null || echo > {path}", uid=0)
    assert exit_.code != 0


@pytest.mark.parametrize(
    "attempt",
    ["mount -t tmpfs x /tmp", "unshare -U true", "mknod /tmp/sda b 8 0", "chroot / true"],
)
def test_privileged_calls_are_refused(run, attempt, shared_store):
    if shared_store.idmap.squash and "mknod" in attempt:
        attempt += " && [ -b /tmp/sda ]"  # the call is answered "done", and does nothing
    assert run(attempt)[0].code != 0


def test_a_cancelled_container_is_gone_with_its_children(run, host):
    cancel = Cancel()
    begun = time.monotonic()

    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Interrupted):
        run("trap '' TERM INT; sleep 100 & sleep 100", cancel=cancel)
    assert time.monotonic() - begun < 5


def test_a_daemon_left_behind_does_not_hold_the_container(run):
    exit_, said = run("sleep 100 & echo started")
    assert (exit_.code, said) == (0, "started\n")


def test_a_fork_bomb_meets_the_limit(run):
    _, said = run(f"sleep 0.5; {BOMB}", limits=TWENTY)  # crun cannot set it beforehand
    assert "can't fork" in said


@pytest.mark.parametrize("beside", [False, True])
def test_row_33_who_forks_before_it_is_limited_meets_a_limit_too(
    run, start, host, monkeypatch, *, beside
):
    """Set from outside, it may be late; the host must not run out of processes meanwhile."""
    many = "exec 2>&1; for i in $(seq 6000); do sleep 9 & done; echo all"
    first = start("sleep 100", limits=TWENTY)
    monkeypatch.setattr(processes, "limit", lambda *_: None)
    if beside:
        process = Process(args=("/bin/sh", "-c", many), env={"PATH": "/bin"}, uid=1000)
        said = []
        follow(host.runtime.exec(first, process), said.append, Cancel())
    else:
        said = run(many, limits=TWENTY)[1]
    first.delete()
    assert "can't fork" in "".join(said)


def test_a_process_beside_the_first_is_limited_too(start, host):
    first = start("sleep 100", limits=TWENTY)
    script = f"exec 2>&1; sleep 0.5; {BOMB}"  # where crun cannot set it, it is in force a bit later
    bomb = Process(args=("/bin/sh", "-c", script), env={"PATH": "/bin"}, uid=1000)
    said = []
    follow(host.runtime.exec(first, bomb), said.append, Cancel())
    first.delete()
    assert "can't fork" in "".join(said)


def test_nobody_inside_is_given_what_the_host_reads_nothing_from(start, host):
    """Not its /dev/null, which who owns it can close for everybody."""
    before = os.stat("/dev/null")
    first = start("sleep 100")
    words = "stat -L -c '%d %i' /proc/self/fd/0; cat; echo end"
    look = Process(args=("/bin/sh", "-c", words), env={"PATH": "/bin"}, uid=1000)
    said = []
    follow(host.runtime.exec(first, look), said.append, Cancel())
    first.delete()
    found = "".join(said).split()
    assert found[-1] == "end"
    assert found[:2] != [str(before.st_dev), str(before.st_ino)]
    now = os.stat("/dev/null")
    assert (now.st_uid, now.st_gid, now.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_the_limit_of_processes_counts_nobody_outside(run):
    """Without a cgroup it is an rlimit, and the OCI runtime is started by somebody busy."""
    others = [subprocess.Popen(["sleep", "100"]) for _ in range(30)]
    try:
        exit_, said = run("for i in $(seq 10); do sleep 1 & done; wait; echo ok", limits=TWENTY)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert (exit_.code, said) == (0, "ok\n")


@pytest.fixture
def limited_late(host):
    if host.runtime.cgroup is not None or host.runtime.path.name == "crun":
        pytest.skip("only a user's runc cannot set the limit before the program begins")


def test_row_34_what_a_program_takes_before_it_is_limited_counts_too(
    run, limited_late, monkeypatch
):
    """A limit from outside comes late where the host is busy, and takes nothing away."""
    limit = processes.limit

    def set_late(*arguments):
        time.sleep(0.5)
        limit(*arguments)

    monkeypatch.setattr(processes, "limit", set_late)
    limits = Limits(memory_bytes=32 * 1024**2, pids=64)
    exit_, _ = run("tail -c 900m /dev/zero >/dev/null", limits=limits, init=False)
    assert str(exit_) == "ran out of memory: the limit of 32 MiB was reached"
    exit_, said = run("echo little", limits=limits)
    assert (exit_.status, said) == (0, "little\n")


def test_what_others_hold_ends_nobody(start, host, limited_late):
    container = start("tail -c 40m /dev/zero | sleep 60", limits=Limits(memory_bytes=64 * 1024**2))
    until(lambda: processes.has_more_data(container.pid, 32 * 1024**2))
    relimit.apply(container, Limits(memory_bytes=32 * 1024**2))
    beside = host.runtime.exec(container, Process(args=("/bin/true",), env={}, uid=0, gid=0))
    assert beside.wait(timeout_s=10).status == 0
    beside.delete()
    container.delete()


def test_memory_is_limited_where_a_cgroup_allows(run, host):
    if host.runtime.cgroup is None:
        pytest.skip("no cgroup of our own here: memory is not limited, as doctor says")
    limits = Limits(memory_bytes=32 * 1024**2, pids=64)
    exit_, _ = run("tail -c 200m /dev/zero", limits=limits)
    assert exit_.out_of_memory
    assert "32 MiB" in str(exit_)


def test_a_share_of_the_processors_is_its_cgroups(start, host):
    cgroup = host.runtime.cgroup
    if cgroup is None or not cgroup.has("cpu"):
        pytest.skip("no cgroup of our own here that shares out processors, as doctor says")
    container = start("sleep 9", limits=Limits(pids=64, cpu_shares=512))
    share = int(cgroup.file(container.name, "cpu", "cpu.shares", "cpu.weight").read_text())
    container.delete()
    assert share == 512 if cgroup.version == 1 else share < 100


def test_row_39_nothing_is_left_after_a_container(run, host, entered):
    def traces():
        found = {*(entered.run_dir / "runtime").iterdir(), *(entered.run_dir / "bundles").iterdir()}
        found |= {
            *Path("/sys/fs/cgroup").glob(f"*/container-kernel/{entered.run_dir.name}/c[0-9]*")
        }
        return found | {pid for pid in os.listdir("/proc") if pid.isdigit()}

    run("true")
    time.sleep(0.5)  # traces are removed behind the scenes
    before = traces()
    for _ in range(10):
        run("sleep 9 & true")
    deadline = time.monotonic() + 5
    while traces() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert traces() == before


def test_nobody_can_write_to_what_crun_is_run_from(tmp_path):
    """CVE-2019-5736: what it would protect itself from at each start is seen to before."""
    fd = os.open(sealed.executable(find_tool("crun"), tmp_path), os.O_WRONLY)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    os.close(fd)


def test_the_exit_code_of_the_quickest_process_is_not_lost(run):
    assert {run("exit 3", init=False)[0].code for _ in range(30)} == {3}


def test_it_works_in_a_process_with_many_open_files(run):
    """select(2) takes no descriptor above 1023; a notebook server may hold more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        exit_, said = run("echo out; exit 3")
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (exit_.code, said) == (3, "out\n")


class Traced:
    """Holds a process as a debugger does: whatever happens to it, its parent hears of it later."""

    _SEIZE = 0x4206  # ptrace(2)

    def __init__(self, pid):
        self._begun, self._over, self.failed = threading.Event(), threading.Event(), None
        self._thread = threading.Thread(target=self._hold, args=(pid,))

    def _hold(self, pid):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(self._SEIZE, pid, 0, 0) != 0:
            self.failed = os.strerror(ctypes.get_errno())
        self._begun.set()
        self._over.wait()

    def __enter__(self):
        self._thread.start()
        self._begun.wait()
        assert not self.failed

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


@pytest.fixture
def impatient(monkeypatch):
    """Who kills a container waits for a moment only."""
    monkeypatch.setattr(containers, "_THAWED_AFTER_S", 0.2)
    monkeypatch.setattr(containers, "_GIVEN_UP_AFTER_S", 0.5)


@pytest.mark.parametrize("script", ["trap '' TERM INT HUP; echo on; sleep 60", "kill -STOP $$"])
def test_row_169_what_ignores_signals_or_stands_still_ends_at_once(start, script):
    container = start(script)
    if "echo" in script:
        assert os.read(container.stdout, 3) == b"on\n"
    else:
        until(lambda: "state T" in processes.stuck(container.pid))
    container.signal(signal.SIGTERM)
    begun = time.monotonic()
    assert container.delete().signal == signal.SIGKILL
    assert time.monotonic() - begun < 5


def test_row_169_what_somebody_else_has_frozen_is_thawed_and_its_cgroups_go(start, host, impatient):
    cgroup = host.runtime.cgroup
    if cgroup is None or cgroup.version != 1:
        pytest.skip("no cgroup v1 here: what is frozen on v2 can be killed")
    container = start("sleep 60")
    folders = cgroup.folders(container.name)
    for folder in folders:
        (folder / "below").mkdir(exist_ok=True)
    cgroup.file(container.name, "freezer", "freezer.state", "").write_text("FROZEN")
    container.delete()
    assert sweeper.drain()
    assert not any(folder.exists() for folder in folders)


def test_row_169_what_cannot_be_killed_is_named_and_given_up(start, impatient):
    """As in a read that never ends. Here a dead process keeps its container, which one traces."""
    container = start("sleep 60 & wait", init=False)
    until(lambda: len(processes.members(container.pid)) == 2)
    with Traced(processes.members(container.pid)[-1]):
        with pytest.raises(HostError, match=r"process .*state Z\).* cannot be killed"):
            container.delete()
        assert container.delete().signal == signal.SIGKILL
