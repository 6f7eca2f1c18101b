"""Threats, group H: what an OCI runtime shows of itself, and what the host kernel leaves open."""

from __future__ import annotations

import contextlib
import hashlib

import pytest

from container_kernel.errors import ContainerKernelError
from container_kernel.runtime import sweeper
from tests.few_files import limited, opened, refusal
from tests.kernel.conftest import until
from tests.runtime.facts import read
from tests.runtime.hostile import say

pytestmark = pytest.mark.privileged
PTRACE = ("CAP_SYS_PTRACE",)


@pytest.fixture(scope="module", params=[(), PTRACE], ids=["as-root", "ptrace"])
def seen(request, hostile, place):
    """What a process in a container sees of others while processes are started beside it.

    By way of ptrace(2), which takes a switch of ours, it sees what it must not see without.
    """
    programs = [one for one in (place.host.runtime.path, place.host.runtime.init) if one]
    before = [hashlib.sha256(path.read_bytes()).digest() for path in programs]
    with hostile.live({}, as_root=True, capabilities=request.param) as live:
        watcher = live.start(["/probe", "watch", "600"])
        for argv in [["/proc/self/exe"], ["/bin/true"]] * 5:
            with contextlib.suppress(ContainerKernelError):
                live.exec(argv).delete()
        lines = read(watcher).splitlines()
    assert [hashlib.sha256(path.read_bytes()).digest() for path in programs] == before
    assert lines.pop(0) == "watching"
    return request.param, {tuple(line.split(" ", 1)) for line in lines}


def test_row_121_no_program_of_the_host_can_be_written_to(seen):
    """CVE-2019-5736: not through /proc/PID/exe, nor once it is not executed any more."""
    held, found = seen
    programs = {target for what, target in found if what == "writable"}
    assert programs <= {"/bin/busybox", *(["/memfd:crun (deleted)"] if held else [])}


def test_row_122_nothing_of_who_starts_a_process_is_seen(seen, entered):
    """CVE-2016-9962: no program, folder or file of the host, also for a moment."""
    held, found = seen
    rootless = entered.is_rootless  # whose runtime is seen by nobody inside
    known = {"/bin/busybox", "/run/container-kernel-init", "/", "/work", "/dev/null"}
    others = {(what, target) for what, target in found if target not in known}
    others = {(w, t) for w, t in others if not t.startswith(("pipe:", "anon_inode:[signalfd]"))}
    assert {what for what, _ in others} - {"writable"} == set() or held
    if not rootless:
        assert bool(others) is bool(held)


@pytest.mark.parametrize("no_seccomp", [False, True], ids=["filter", "none"])
@pytest.mark.parametrize("as_root", [False, True], ids=["user", "as-root"])
def test_row_130_no_cgroup_is_mounted_in_a_user_namespace(hostile, as_root, no_seccomp):
    """CVE-2022-0492: the filter refuses, and without one the host kernel does."""
    with hostile.live({}, as_root=as_root, no_seccomp=no_seccomp) as live:
        lines = read(live.start(["/probe", "cgroups", *["--bare"] * no_seccomp])).splitlines()
    assert "release_agent done" not in lines
    assert ("unshare done" in lines) is no_seccomp


@pytest.fixture
def few_files():
    with limited() as few_files:
        yield few_files


@pytest.mark.parametrize(("more", "many"), [*((n, 20) for n in (*range(1, 10), 40)), (200, 50)])
def test_row_38_where_files_run_out_a_start_fails_clean_and_leaves_none_open(
    hostile, few_files, more, many
):
    with hostile.live({}) as live:  # what is made once in a process is
        say(live, "true")
    assert sweeper.drain()
    before = opened()

    def start_many():
        with contextlib.ExitStack() as stack:
            for _ in range(many):
                stack.enter_context(hostile.live({})).start(["sleep", "60"])

    few_files(more)
    said = refusal(start_many)
    assert "Too many open files" in said
    assert "ulimit -n" in said
    few_files(40)
    assert sweeper.drain()
    until(lambda: opened() <= before)  # a thread that is not waited for has a file for a moment
    with hostile.live({}) as live:
        assert say(live, "echo again") == "again\n"
