"""Row 120: what docker-bench-security asks of a container (section 5), asked of our bundles.

What is about Docker's daemon, its network bridge, restarts, health checks, ssh in images or tags of
images has nothing here to be asked of: 5.6, 5.8, 5.13, 5.14, 5.26, 5.27, 5.29. Memory (5.10), a
build's share of the processors (5.11) and processes of exec (5.22, 5.23) are asked of running
containers, in test_limits, test_container and rows 103, 34.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from container_kernel.runtime import apparmor, profile
from container_kernel.runtime import oci_runtime as runtimes
from tests.runtime.hostile import say

pytestmark = pytest.mark.privileged
SENSITIVE = (
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/proc",
    "/sys",
    "/usr",
    "/var",
    "/root",
    "/home",
)
HOSTS = ("rshared", "shared", "rslave", "slave", "suid", "dev")


@pytest.fixture(scope="module", params=["run", "as-root", "build"])
def told(request, hostile):
    """What an OCI runtime is told of a container."""
    specs = []
    write = runtimes.bundle.write

    def noted(folder, spec, held):
        write(folder, spec, held)
        told = json.loads((folder / "config.json").read_text())
        for mount in binds(told):  # they are gone with it
            mount["mode"] = Path(mount["source"]).stat().st_mode
        specs.append(told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtimes.bundle, "write", noted)
        if request.param == "build":
            hostile.build({}, "true")
        else:
            with hostile.live({}, as_root=request.param == "as-root") as live:
                say(live, "true")
    (spec,) = specs
    return spec


def binds(spec):
    return [mount for mount in spec["mounts"] if mount["type"] == "bind"]


def namespaces(spec):
    return {one["type"]: one.get("path") for one in spec["linux"]["namespaces"]}


def rlimits(spec):
    return {one["type"]: one["hard"] for one in spec["process"]["rlimits"]}


def limit(spec, controller, rlimit, default=None):
    """By the cgroup, else by an rlimit, which crun is told of once the process runs."""
    held = spec["linux"].get("resources", {}).get(controller, {}).get("limit")
    return held or rlimits(spec).get(rlimit, default)


CHECKS = {
    "5.1 AppArmor profile, where the host has one": lambda spec: (
        "user" in namespaces(spec) or spec["process"].get("apparmorProfile") == apparmor.profile()
    ),
    "5.3 few capabilities": lambda spec: (
        set(spec["process"]["capabilities"]["bounding"]) <= set(profile.BUILD_CAPABILITIES)
    ),
    "5.4 not privileged": lambda spec: (
        "CAP_SYS_ADMIN" not in spec["process"]["capabilities"]["bounding"]
        and spec["linux"]["maskedPaths"]
    ),
    "5.5 no sensitive folder of the host": lambda spec: (
        not {mount["source"] for mount in binds(spec)} & set(SENSITIVE)
    ),
    "5.7, 5.9 not the host's network": lambda spec: "network" in namespaces(spec),
    "5.12 no layer is the root, but an overlay on it": lambda spec: (
        "/rootfs/" in spec["root"]["path"]
    ),
    "5.15 not the host's processes": lambda spec: namespaces(spec)["pid"] is None,
    "5.16 not the host's ipc": lambda spec: namespaces(spec)["ipc"] is None,
    "5.17 no devices of the host": lambda spec: (
        not any(stat.S_ISBLK(mount["mode"]) or stat.S_ISCHR(mount["mode"]) for mount in binds(spec))
    ),
    "5.18 open files and dumps are limited": lambda spec: (
        rlimits(spec)["RLIMIT_CORE"] == 0 and rlimits(spec)["RLIMIT_NOFILE"] > 0
    ),
    "5.19 no mount goes back to the host": lambda spec: (
        spec["linux"]["rootfsPropagation"] == "private"
        and not any(set(mount["options"]) & set(HOSTS) for mount in binds(spec))
    ),
    "5.20 not the host's name": lambda spec: namespaces(spec)["uts"] is None,
    "5.21 seccomp refuses by default": lambda spec: (
        spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    ),
    "5.24 a cgroup of its own": lambda spec: namespaces(spec)["cgroup"] is None,
    "5.25 no new privileges": lambda spec: spec["process"]["noNewPrivileges"],
    "5.28 processes are limited": lambda spec: limit(spec, "pids", "RLIMIT_NPROC", "from outside"),
    "5.31 no socket of a daemon": lambda spec: (
        not any(stat.S_ISSOCK(mount["mode"]) for mount in binds(spec))
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_row_120_docker_bench_has_nothing_to_say(told, check):
    assert CHECKS[check](told)
