"""Everything in a container stands still, goes on, and can be killed meanwhile."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from container_kernel import syscalls
from container_kernel.runtime import quiesce

pytestmark = pytest.mark.privileged
COUNT = "n=0; while :; do n=$((n+1)); echo $n > {}; done"


@pytest.fixture
def cgroup(tmp_path):
    """A cgroup of the v2 hierarchy, wherever the host has that."""
    if os.getuid() or Path("/proc/self/uid_map").read_text().split()[1:2] != ["0"]:
        pytest.skip("only root can make a cgroup without delegation")
    top = tmp_path / "cgroup2"
    top.mkdir()
    syscalls.mount("none", str(top), "cgroup2")
    folder = top / f"test-{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()
    syscalls.umount(str(top), syscalls.MNT_DETACH)


@pytest.fixture(params=["cgroup", "signals"])
def counting(request, tmp_path):
    """A container's stand-in: a process in a pid namespace that counts, with a child that does."""
    folder = request.getfixturevalue("cgroup") if request.param == "cgroup" else None
    files = [tmp_path / "parent", tmp_path / "child"]
    script = f"({COUNT.format(files[1])}) & {COUNT.format(files[0])}"
    process = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script])
    _until(lambda: all(file.exists() for file in files))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pid = int(children[0])
    if folder:
        for member in quiesce.members(pid):
            (folder / "cgroup.procs").write_text(str(member))
    yield SimpleNamespace(pid=pid, freezer=folder), files, process
    process.kill()
    process.wait()
    _until(lambda: not Path(f"/proc/{pid}").exists() or _state(pid) == "Z")
    if folder:
        _until(lambda: not (folder / "cgroup.procs").read_text())


def test_all_stand_still_and_go_on(counting):
    container, files, _ = counting
    with quiesce.quiesced(container) as members:
        assert container.pid in members
        assert len(members) == 2
        before = [file.read_text() for file in files]
        time.sleep(0.05)
        assert [file.read_text() for file in files] == before
    _until(lambda: all(f.read_text() != b for f, b in zip(files, before, strict=True)))


def test_they_go_on_when_what_was_done_failed(counting):
    container, files, _ = counting
    before = []

    def fail():
        with quiesce.quiesced(container):
            before.extend(file.read_text() for file in files)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    _until(lambda: all(f.read_text() != b for f, b in zip(files, before, strict=True)))


def test_what_stands_still_can_be_killed(counting):
    container, _, process = counting
    quiesce.stop(container)
    os.kill(container.pid, 9)
    assert process.wait(10) != 0


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
