"""Threats, group C, in a build step: what it uses up ends it with an error that names the limit."""

from __future__ import annotations

import subprocess

import pytest

from container_kernel.build.step import Base, Shell
from container_kernel.ceilings import Ceilings
from container_kernel.errors import StepFailed
from container_kernel.record import replace

pytestmark = pytest.mark.privileged
BOMB = "bomb() { bomb | bomb & }; for i in $(seq 60); do sleep 2 & done; bomb; sleep 1; exit 7"


@pytest.fixture
def small(make_bench, settings):
    """A workbench whose steps may use little."""
    ceilings = Ceilings(most={"memory_bytes": 64 * 1024**2}, file="ceilings.toml")
    bench = make_bench(replace(settings, build_pids=40, ceilings=ceilings))
    bench.build("base", Base("busybox"))
    return bench


@pytest.fixture
def has_cgroup(host):
    return host.runtime.cgroup is not None


def failure(bench, script):
    with pytest.raises(StepFailed) as raised:
        bench.build("a", Shell(script, net="none"))
    return str(raised.value)


def test_row_33_a_fork_bomb_meets_the_limit_and_the_host_forks(small, unique):
    said = failure(small, f"{unique}\n{BOMB}")
    subprocess.run(["true"], check=True)
    assert "the limit of 40 processes was reached" in said
    assert "c.ContainerKernel.build_pids raises the limit" in said


def test_row_34_a_memory_hog_is_told_of_the_limit_and_the_peak(small, unique, has_cgroup):
    said = failure(small, f"{unique}\ntail -c 900m /dev/zero > /dev/null")
    assert "the limit of 64 MiB" in said
    assert "do less at once" in said
    assert ("(peak 64 MiB)" in said) is has_cgroup
