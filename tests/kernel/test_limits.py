"""Limits of cells: what is set holds, what is met is told, and the kernel lives on; for real."""

from __future__ import annotations

import os
import re
import time

import pytest

from container_kernel.runtime.host import Host

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def kernel(tmp_path_factory, oci_runtime):
    from tests.kernel.test_real import RealKernel

    folder, home = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("home")
    kernel = RealKernel(folder, home, oci_runtime)
    assert kernel.run("%base busybox")[0]["status"] == "ok"
    yield kernel
    kernel.close()


@pytest.fixture
def has_cgroup(entered, oci_runtime):
    return Host.open(entered, oci_runtime).runtime.cgroup is not None


def failure(kernel, code):
    """The error of a cell and all it wrote."""
    reply, outputs = kernel.run(code)
    assert reply["status"] == "error", code
    texts = [one["content"].get("text", "") for one in outputs]
    return "\n".join([*texts, reply["evalue"], *reply["traceback"]])


def rows(kernel, code="%limits"):
    """The table of %limits, by its first column."""
    text = kernel.text(code).rpartition("limit ")[2]
    return {line.split()[0]: line for line in text.splitlines()[1:] if line.strip()}


SLOW_TO_LOOK = """
import time
from container_kernel.runtime.pressure import Pressure

look = Pressure._events
Pressure._events = lambda self: (time.sleep(0.3), look(self))[1]
"""
BOMB = "for i in $(seq 60); do sleep 3 & done; exit 7"


def test_row_35_without_flags_it_shows_value_use_and_holder(kernel, has_cgroup):
    kernel.run("true")
    shown = rows(kernel)
    by = "cgroup v" if has_cgroup else "RLIMIT_NPROC"
    assert re.search(rf"pids +2048 +\d+ +{by}", shown["pids"])
    assert re.search(r"shm +64 MiB +0 KiB +size of the tmpfs", shown["shm"])
    assert "no limit" in shown["scratch"]


def test_a_session_that_runs_is_held_at_once_and_keeps_its_variables(kernel, has_cgroup):
    kernel.run("x=5")
    assert kernel.run("%limits --pids 40 --shm 1m --cpuset 0")[0]["status"] == "ok"
    assert kernel.text("echo $x").strip() == "5"
    assert kernel.text("grep Cpus_allowed_list /proc/self/status").split()[-1] == "0"
    assert "of 1 MiB of /dev/shm was reached" in failure(
        kernel, "head -c 2m /dev/zero >/dev/shm/x || (exit 3)"
    )
    kernel.run("rm /dev/shm/x")
    said = failure(kernel, f"( {BOMB} )")
    assert "the limit of 40 processes was reached" in said
    assert "%limits --pids 80" in said
    kernel.run("%limits --pids 2048 --shm 64m" if has_cgroup else "%limits --shm 64m")


def test_what_a_cell_meets_at_once_is_told_by_a_kernel_that_has_no_turn(tmp_path, monkeypatch):
    """What was met before a cell is looked at before it is passed on, not while it runs."""
    from tests.kernel.test_real import RealKernel

    (tmp_path / "sitecustomize.py").write_text(SLOW_TO_LOOK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    folder = tmp_path / "notebook"
    folder.mkdir()
    kernel = RealKernel(folder, tmp_path / "home", "crun")
    try:
        kernel.run("%base busybox")
        assert kernel.run("%limits --pids 40")[0]["status"] == "ok"
        assert "the limit of 40 processes was reached" in failure(kernel, f"( {BOMB} )")
    finally:
        kernel.close()


def test_what_takes_a_new_session_is_not_done_behind_ones_back(kernel):
    kernel.run("%limits --restart --scratch 8m")
    kernel.run("y=6")
    assert "loses the variables" in failure(kernel, "%limits --io 1m")
    assert kernel.text("echo $y").strip() == "6"
    said = failure(kernel, "head -c 9m /dev/zero > /tmp/fill || (exit 3)")
    assert "the limit of 8 MiB of scratch was reached" in said
    assert "%limits --scratch 16m" in said
    kernel.run("%limits --scratch 16m")
    assert kernel.run("rm /tmp/fill; head -c 9m /dev/zero > /tmp/fill")[0]["status"] == "ok"


def test_a_build_slides_under_a_session_with_a_limited_scratch(kernel):
    kernel.run("%limits --restart --scratch 16m")
    kernel.run("z=7; echo mine > /tmp/mine")
    kernel.run("%%build --net none\necho layer > /layer")
    assert kernel.text("echo $z; cat /tmp/mine /layer").split() == ["7", "mine", "layer"]
    assert kernel.text("%freeze held:1")


def test_the_end_of_a_session_for_memory_is_told_with_what_raises_it(kernel, has_cgroup):
    if not has_cgroup:
        pytest.skip("no cgroup here: a process is refused memory, and nobody is killed for it")
    kernel.run("%limits --restart --memory 48m")
    said = failure(kernel, "x=aaaaaaaa; while :; do x=$x$x; done")
    assert "of 48 MiB of memory was reached (peak 48 MiB)" in said or "limit of 48 MiB was" in said
    assert "%limits --memory 96m" in said
    assert kernel.run("true")[0]["status"] == "ok"
    kernel.run("%limits --memory 2g")


def test_a_cell_has_its_time(kernel):
    kernel.run("%limits --timeout 0.5s")
    begun = time.monotonic()
    said = failure(kernel, "sleep 60")
    assert time.monotonic() - begun < 10
    assert "the limit of a cell's time: give it more with %limits --timeout 1s" in said
    assert kernel.run("true")[0]["status"] == "ok"
    kernel.run("%limits --timeout 1h")


@pytest.mark.parametrize(
    ("flags", "limit", "raised", "script"),
    [
        ("--pids 20", "of 20 processes", "--pids 40", BOMB),
        ("--scratch 4m", "of 4 MiB of scratch", "--scratch 8m", "head -c 5m /dev/zero > /tmp/x"),
        ("--shm 1m", "of 1 MiB of /dev/shm", "--shm 2m", "head -c 2m /dev/zero > /dev/shm/x"),
        (
            "--files 64",
            "of 64 open files",
            "--files 128",
            'i=3; while [ $i -lt 80 ]; do eval "exec $i</dev/null" || exit 1; i=$((i+1)); done',
        ),
    ],
)
def test_what_a_command_uses_up_is_named(kernel, flags, limit, raised, script):
    said = failure(kernel, f"%%run {flags}\n{script}")
    assert f"the limit {limit} was reached" in said
    assert f"raise it with {raised}" in said


def test_memory_that_a_command_uses_up_is_named(kernel):
    said = failure(kernel, "%%run --memory 256m\ntail -c 900m /dev/zero")
    assert "the limit of 256 MiB" in said
    assert "raise it with --memory 512m" in said


def test_no_core_is_dumped_and_timers_and_queues_are_bounded(kernel):
    said = kernel.text("%%run cat /proc/self/limits")
    held = {line[:26].strip(): line[26:].split()[:2] for line in said.splitlines()}
    assert held["Max core file size"] == ["0", "0"]
    assert held["Max msgqueue size"] == ["819200", "819200"]
    assert int(held["Max pending signals"][1]) <= 8192


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--memory 0", "a size from 6m on, such as 512m or 2g, found '0'"),
        ("--memory -1g", "a size from 6m on"),
        ("--memory 99999999t", "a size from 6m on"),
        ("--memory 2x", "found '2x'"),
        ("--pids 0", "a whole number above zero, found '0'"),
        ("--cpus 100000", "the processors here"),
        ("--cpus -1", "a number from 0.01"),
        ("--cpuset 0-4000", "processors as 0-1 or 0,2; here are"),
        ("--cpuset ,", "processors as 0-1"),
        ("--files 63", "a whole number from 64 on"),
        ("--shm 1", "a size from 64k on"),
        ("--scratch 0", "a size from 64k on"),
        ("--io 0", "bytes a second such as 10m"),
        ("--io-weight 0", "a number from 1 to 10000"),
        ("--timeout -5s", "a time such as 30s"),
        ("--timeout 0", "a time such as 30s"),
    ],
)
@pytest.mark.parametrize("magic", ["%limits {}", "%%run {} true"])
def test_a_value_that_is_none_is_named_with_what_is_expected(kernel, magic, flags, expected):
    assert expected in failure(kernel, magic.format(flags))


def test_row_41_what_a_cell_shares_with_the_kernel_is_small_and_a_session_of_its_own(kernel):
    """It was part of what all containers of a kernel are started from, and as large as memory."""
    said = failure(kernel, "dd if=/dev/zero of=/run/container-kernel/x bs=1M count=300 || exit 1")
    assert "No space left" in said
    assert kernel.text("%%run echo another").strip() == "another"
    assert kernel.run("%limits --restart --pids 99")[0]["status"] == "ok"
    assert kernel.text("echo a new one; ls /run/container-kernel | grep -c '^x$'").split() == [
        *("a", "new", "one", "0")
    ]
