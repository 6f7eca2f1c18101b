"""Our containers beside podman's with its defaults: nowhere weaker. ``-s`` prints the table."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest

from tests.runtime import facts

pytestmark = pytest.mark.privileged
REFUSED = ("errno 1", "errno 38")
KINDS = ("run", "as-root", "build")


@pytest.fixture(scope="module")
def podman(prober, entered):
    """The same facts from a container of podman's, on the same image."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: nothing to compare with")
    if entered.is_rootless:
        pytest.skip("podman's own user namespace does not start inside of ours")
    with prober.live() as live:
        argv = ["podman", "--runtime", "runc", "run", "--rm", "--ulimit", "host"]
        argv += ["--network", "none", "--log-driver", "none"]
        argv += ["--rootfs", str(live.rootfs.path), "/bin/sh", "-c", facts.script()]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"podman does not start here: {done.stderr.strip()[-300:]}")
    return facts.Facts("podman", done.stdout)


@pytest.fixture(scope="module")
def ours(prober):
    return {kind: prober.facts(kind) for kind in KINDS}


def refused(found, section="calls"):
    return {name for name, answer in found.pairs(section).items() if answer in REFUSED}


def row(found):
    """One column of the table."""
    status = found.status
    return {
        "capabilities": status["CapEff"],
        "bounding": status["CapBnd"],
        "no new privileges": status["NoNewPrivs"],
        "seccomp": status["Seccomp"],
        "calls refused of 500": len(refused(found)),
        "attempts refused": len(refused(found, "attempts")),
        "user": "/".join(found["who"]),
        "mounts": len(found.mounts),
        "devices": len(found["devices"]),
        "masked paths that show something": sum(
            value != "0" for value in found.pairs("content").values()
        ),
        "files that open for writing": len(found["written"]),
        "cgroup mounts": sum(m.kind.startswith("cgroup") for m in found.mounts),
        "nodev, nosuid or noexec mounts": sum(
            bool(m.options & {"nodev", "nosuid", "noexec"}) for m in found.mounts
        ),
    }


def test_nowhere_is_a_container_weaker_than_podmans(podman, ours):
    columns = {"podman": row(podman), **{kind: row(found) for kind, found in ours.items()}}
    for title in columns["podman"]:
        print(f"{title:36}", *(f"{column[title]!s:>18}" for column in columns.values()))
    theirs = podman.status
    for kind, found in ours.items():
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert not int(found.status[name], 16) & ~int(theirs[name], 16), (kind, name)
        assert found.status["NoNewPrivs"] >= theirs["NoNewPrivs"]
        assert found.status["Seccomp"] >= theirs["Seccomp"]
        assert set(found["devices"]) <= set(podman["devices"])
        assert set(found["written"]) <= set(podman["written"])
        weaker = refused(podman, "attempts") - refused(found, "attempts")
        assert {name for name in weaker if not name.startswith("socket")} <= {"x32"}


# Younger than the profile Debian ships; they do what older calls do. The last of them podman's
# container may not use because new privileges are open to it.
YOUNGER = (
    *("futex_waitv", "futex_wait", "futex_wake", "futex_requeue", "cachestat", "fchmodat2"),
    *("map_shadow_stack", "mseal", "landlock_restrict_self"),
)


def test_every_call_that_podman_refuses_is_refused_here(podman, ours):
    library = ctypes.CDLL("libseccomp.so.2")
    known = {str(library.seccomp_syscall_resolve_name(name.encode())) for name in YOUNGER}
    known |= {"452", "453", "454", "455", "456", "462"}  # which Debian's libseccomp cannot name
    for kind, found in ours.items():
        calls, theirs = found.pairs("calls"), podman.pairs("calls")
        weaker = {n: (theirs[n], calls[n]) for n in refused(podman) - refused(found) - known}
        assert weaker == {}, kind
