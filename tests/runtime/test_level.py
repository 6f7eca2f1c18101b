"""Levels of isolation, on this host and on it made poorer, for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from container_kernel import syscalls
from container_kernel.errors import IsolationTooWeak, UsageError
from container_kernel.runtime import cgroup, level
from container_kernel.runtime.level import Level
from tests.kernel.conftest import until


def run(lacks, *words, **env):
    """A command of ours on a host that lacks something."""
    argv = [sys.executable, "-m", "tests.hosts", *lacks, "--", sys.executable, "-m"]
    gone = ("XDG_RUNTIME_DIR", "CONTAINER_KERNEL_SINGLE_UID")
    environ = {name: value for name, value in os.environ.items() if name not in gone}
    return subprocess.run(
        [*argv, "container_kernel", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**environ, **env},
        timeout=60,
    )


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("lack", "said"),
    [
        ("ids", "no range for this user in /etc/subuid"),
        ("enough-ids", "only 100 ids, fewer than 2000, for this user in /etc/subuid"),
        ("newuidmap", "newuidmap is not installed"),
        ("setuid", "newuidmap is not setuid root"),
        ("right-to-map", "newuidmap refused to map ids 100000 to 165535"),
    ],
)
def test_row_171_without_ids_to_lend_it_goes_on_with_one_and_says_why(lack, said):
    done = run([lack], "doctor", "--json")
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)["findings"]
    isolation = [one for one in findings if one["name"] == "isolation"]
    assert isolation[0]["found"].startswith("single-uid: ")
    assert any(said in one["found"] for one in isolation)
    assert all("--add-subuids 100000-165535" in one["remedy"] for one in isolation)


@pytest.mark.privileged
def test_row_171_without_user_namespaces_the_remedy_is_exact():
    done = run(["user-namespaces"], "doctor")
    assert done.returncode == 3
    assert "sudo sysctl user.max_user_namespaces=15000" in done.stderr + done.stdout


@pytest.mark.privileged
def test_doctor_names_the_kind_of_namespace_that_is_not_there():
    done = run(["ids", "net-namespaces"], "doctor", "--json")
    assert done.returncode == 3
    (found,) = [f for f in json.loads(done.stdout)["findings"] if f["name"] == "namespaces"]
    assert "no net namespaces" in found["found"]
    assert found["remedy"] == "sudo sysctl user.max_net_namespaces=15000"


@pytest.mark.privileged
def test_without_network_namespaces_the_remedy_is_exact(tmp_path, oci_runtime):
    """And nothing is left half made."""
    home = tmp_path / "home"
    done = run(
        ["ids", "net-namespaces"],
        *("exec", "--image", "busybox", "--", "true"),
        CONTAINER_KERNEL_HOME=str(home),
        CONTAINER_KERNEL_RUNTIME=oci_runtime,
    )
    assert done.returncode == 3
    assert "sudo sysctl user.max_net_namespaces=15000" in done.stderr
    assert list((home / "active").iterdir()) == []


@pytest.mark.privileged
def test_less_than_the_settings_ask_for_is_refused(tmp_path):
    (tmp_path / "container_kernel_config.py").write_text(
        "c.ContainerKernel.isolation = 'rootless'\n"
    )
    done = run(
        ["ids"],
        *("exec", "--image", "busybox", "--", "true"),
        CONTAINER_KERNEL_HOME=str(tmp_path / "home"),
        JUPYTER_CONFIG_DIR=str(tmp_path),
    )
    assert done.returncode == 3
    assert "isolation must be 'rootless' or better, and is 'single-uid' here" in done.stderr
    assert "--add-subuids" in done.stderr


@pytest.mark.parametrize(
    ("name", "enough"),
    [
        ("full", ["full", "rootless", "single-uid"]),
        ("rootless", ["rootless", "no-cgroup", "single-uid"]),
        ("single-uid", ["single-uid"]),
    ],
)
def test_a_level_is_enough_for_itself_and_what_is_below(name, enough):
    here = Level(name, "", (("no cgroup", "delegate one"),))
    for wanted in enough:
        here.require(wanted)
    for wanted in {*level.NAMES} - {*enough}:
        with pytest.raises(IsolationTooWeak, match="delegate one"):
            here.require(wanted)


def test_a_level_that_is_none_is_named():
    with pytest.raises(UsageError, match="'best' is no level"):
        Level("full", "").require("best")


def test_on_cgroup_v1_a_user_is_told_to_boot_with_v2():
    v1 = cgroup.path_of("self", "memory")
    assert ("boot Linux with cgroup v2" in cgroup.remedy()) is bool(v1)


@pytest.fixture
def unified(tmp_path):
    """The v2 hierarchy, which root has covered here."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        yield top
        return
    top = tmp_path / "cgroup"
    top.mkdir()
    syscalls.mount("cgroup2", str(top), "cgroup2")
    yield top
    syscalls.umount(str(top))


@pytest.mark.privileged
def test_runc_leaves_no_cgroup_that_it_was_not_told_to_make(oci_runtime, tmp_path, unified):
    """It makes one named as the container, where it may: as root in a user namespace, say.

    A user's container of the same name would then be refused, for a cgroup that is not theirs.
    """
    before = {*unified.glob("*c[0-9]*")}
    words = ("exec", "--image", "busybox", "--", "true")
    kept = {
        "CONTAINER_KERNEL_RUNTIME": oci_runtime,
        "CONTAINER_KERNEL_HOME": str(tmp_path / "home"),
    }
    done = run(["ids"], *words, **kept)
    assert done.returncode == 0, done.stderr
    until(lambda: {*unified.glob("*c[0-9]*")} <= before)
