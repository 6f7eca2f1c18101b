"""What cgroup v2 holds, read back from the host kernel. `./dev soak vm` has a machine with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.build.execute import follow
from container_kernel.runtime import cgroup, meter, relimit
from container_kernel.runtime.bundle import ContainerSpec, Process
from container_kernel.runtime.limits import NOT_HELD, Limits, how
from container_kernel.runtime.quiesce import quiesced
from container_kernel.runtime.rootfs import Rootfs
from tests.kernel.conftest import until

pytestmark = pytest.mark.privileged
MIB = 1024**2
ALL = {
    "memory_bytes": 64 * MIB,
    "pids": 33,
    "cpus": 0.5,
    "cpuset": (0,),
    "io_bps": 10 * MIB,
    "io_weight": 50,
    "disk": Path("/var"),
}


@pytest.fixture
def parent(host):
    """Where containers get their cgroups, on a host with v2."""
    found = host.runtime.cgroup
    if found is None or found.version != 2:
        pytest.skip("cgroup v2 does not hold limits here (it does in ./dev soak vm)")
    return found


@pytest.fixture
def start(parent, host, shared_store, busybox):
    """Start a shell script in a container with limits."""
    rootfs = Rootfs(host, shared_store, busybox.chain_id)
    started = []

    def start(script, **limits):
        spec = ContainerSpec(
            rootfs=rootfs.path,
            process=Process(args=("/bin/sh", "-c", script), env={"PATH": "/bin"}),
            idmap=shared_store.idmap,
            limits=Limits(**limits),
        )
        started.append(host.runtime.run(spec, merge_output=True))
        return started[-1]

    yield start
    for container in started:
        container.delete()
    rootfs.discard()


@pytest.fixture
def value(parent):
    """Read a file of a container's cgroup; None where the controller was not lent."""

    def value(container, file):
        path = parent.folders(container.name)[0] / file
        return path.read_text().strip() if path.exists() else None

    return value


def expected(parent, lines):
    """What is lent of it."""
    return {file: text for file, text in lines.items() if parent.has(file.partition(".")[0])}


def test_each_limit_is_in_the_cgroup(parent, start, value):
    container = start("sleep 100", **ALL)
    lines = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "pids.max": str(33 + container.has_init),
        "cpu.max": "50000 100000",
        "cpuset.cpus": "0",
    }
    assert {file: value(container, file) for file in lines} == {
        **dict.fromkeys(lines),
        **expected(parent, lines),
    }
    if parent.has("io"):
        assert value(container, "io.weight").split() == ["default", "50"]
        assert f"rbps={10 * MIB} wbps={10 * MIB}" in value(container, "io.max")


def test_what_was_not_lent_is_not_claimed(parent):
    words = how(Limits(**ALL), parent)
    assert words["memory_bytes"] == words["pids"] == "cgroup v2"
    for name, field in (("cpu", "cpus"), ("io", "io_weight")):
        assert parent.has(name) or words[field] == NOT_HELD
    assert parent.has("cpuset") or "which a program can undo" in words["cpuset"]


def test_a_running_container_is_limited_anew(start, value):
    container = start("sleep 100", memory_bytes=64 * MIB, pids=33)
    relimit.apply(container, Limits(memory_bytes=48 * MIB, pids=20, cpus=0.25))
    assert value(container, "memory.max") == str(48 * MIB)
    assert value(container, "memory.swap.max") == "0"
    assert value(container, "pids.max") == str(20 + container.has_init)
    assert value(container, "cpu.max") == "25000 100000"


def test_memory_is_not_swapped_but_refused_and_its_peak_known(start):
    container = start("tail -c 200m /dev/zero", memory_bytes=32 * MIB)
    exit_ = follow(container, lambda text: None, Cancel())
    assert exit_.out_of_memory
    assert str(exit_) == "ran out of memory: the limit of 32 MiB was reached (peak 32 MiB)"


def test_processes_are_counted_together(start):
    said = []
    follow(start("for i in $(seq 50); do sleep 5 & done", pids=20), said.append, Cancel())
    assert "can't fork" in "".join(said)


def test_all_stand_still_by_the_freezer(start, value):
    container = start("while :; do :; done")
    with quiesced(container):
        assert "frozen 1" in value(container, "cgroup.events")
    until(lambda: "frozen 0" in value(container, "cgroup.events"))


def test_meters_are_the_cgroups(start):
    container = start("head -c 20m /dev/zero | tail | sleep 100")
    until(lambda: (meter.read(container).peak_memory_bytes or 0) > 20 * MIB)
    found = meter.read(container)
    assert found.source == "cgroup v2"
    assert found.cpu_seconds > 0
    assert found.pids >= 2
    assert {*found.pressure} >= {"cpu", "memory", "io"}


def test_a_users_tree_is_in_a_scope_of_its_own_and_its_supervisor_is_not(parent, entered):
    if not entered.is_rootless:
        pytest.skip("root needs nobody's leave")
    scope = Path(cgroup.own_path()).name
    assert scope == f"container-kernel-{entered.run_dir.name}.scope"
    assert parent.path.startswith(f"{cgroup.own_path()}/container-kernel-")


def test_nothing_is_left_of_it(parent, start):
    container = start("sleep 100")
    (folder,) = parent.folders(container.name)
    assert folder.is_dir()
    container.delete()
    until(lambda: not folder.exists())
