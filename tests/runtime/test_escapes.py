"""Threats, group H: ways out of a container that others had, tried on harmless canaries.

A canary is a folder or file of the host that an image points at; whatever happens, it is as before.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.build.events import StepLog
from container_kernel.errors import CellError, ContainerKernelError
from container_kernel.kernel.magics import build_items
from container_kernel.runtime import host as hosts
from container_kernel.runtime import namespace, sealed
from container_kernel.runtime.bundle import Process
from container_kernel.runtime.host import find_runtime, find_tool
from container_kernel.runtime.identity import check_directory, resolve_user
from tests.runtime.conftest import read

pytestmark = pytest.mark.privileged


@pytest.fixture
def canary(tmp_path):
    """A folder of the host that everybody may write to."""
    folder = tmp_path / "canary"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "file").write_text("untouched")
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"file": "untouched"}


def say(live, script, **options):
    """What a shell script says in a container."""
    return read(live.start(["/bin/sh", "-c", f"exec 2>&1; {script}"], **options))


def replace_by_link(live, path, target):
    """Have the image's ``path`` be a link, as a hostile layer would."""
    upper = live.rootfs.path / path.lstrip("/")
    with suppress(OSError):
        upper.rmdir()
    with suppress(OSError):
        upper.unlink()
    upper.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        upper.symlink_to(target)


def hostile_layer(prober, links):
    """Freeze a layer with links in it; a build step on the image it makes, as a user writes it."""
    lines = ["set +e", *(f"rm -rf {path}; ln -s {target} {path}" for path, target in links.items())]
    cell = "%%build --net none\n" + "\n".join([f": {os.urandom(4).hex()}", *lines, "true"])
    prober.build(cell)


# Rule 1: no descriptor leaks, and no working directory leads out (CVE-2024-21626)


@pytest.fixture
def leaked():
    """Folders of the host, open and inheritable in the process that starts containers."""
    fds = [os.open("/", os.O_RDONLY) for _ in range(40)]
    for fd in fds:
        os.set_inheritable(fd, True)
    yield fds
    for fd in fds:
        os.close(fd)


PLACES = [*(f"/proc/self/fd/{number}" for number in range(41)), "/proc/1/cwd", "/proc/self/cwd"]


def test_row_123_no_working_directory_is_a_descriptor_of_the_host(prober, leaked):
    with prober.live() as live:
        for place in PLACES:
            with pytest.raises(CellError):
                live.start(["pwd"], cwd=place)
        live.start(["sleep", "100"])
        for place in PLACES:
            with pytest.raises(CellError):
                live.exec(["pwd"], cwd=place)


def test_row_123_a_link_of_the_image_to_a_descriptor_is_refused(prober, leaked):
    with prober.live() as live:
        for number in (*range(3, 12), 40):
            replace_by_link(live, f"/out{number}", f"/proc/self/fd/{number}")
            with pytest.raises(CellError):
                live.start(["pwd"], cwd=f"/out{number}")


@pytest.mark.parametrize("place", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/cwd", "/sys"])
def test_row_123_no_build_step_works_in_such_a_place(prober, leaked, place):
    with pytest.raises(CellError):
        prober.build(f"%workdir {place}\n%%build --net none\npwd" if False else f"%workdir {place}")
        prober.build(f"%%build --net none\n: {os.urandom(4).hex()}\npwd")
    prober.build("%workdir /")


def test_row_123_every_descriptor_is_closed_even_behind_the_check(host, prober, leaked):
    """What the OCI runtime itself is started with: nothing to be led out by."""
    with prober.live() as live:
        said = say(live, "for n in $(seq 3 60); do [ -e /proc/1/fd/$n ] && echo $n; done; true")
    assert said == ""


# Rule 2: the top of the root file system is ours (CVE-2026-41579, -47766, -2025-31133, -52565)

SHADOWED = ["/dev", "/proc", "/sys", "/etc", "/run", "/etc/hosts", "/etc/resolv.conf", "/work"]
BELOW = ["/dev/pts", "/dev/shm", "/dev/null", "/dev/mqueue", "/proc/self", "/run/container-kernel"]


def test_row_127_links_at_the_places_that_runtimes_use_lead_nowhere(prober, canary):
    links = dict.fromkeys([*BELOW, *SHADOWED], str(canary))
    live = prober.hostile(links)
    try:
        said = say(live, "ls -ld /dev /proc /sys /etc /run /work; echo x > /work/ok; cat /work/ok")
    finally:
        live.close()
    assert "->" not in said
    assert said.endswith("x\n")


def test_row_127_neither_in_a_build_step(prober, canary):
    links = dict.fromkeys([*BELOW, "/dev", "/proc", "/sys", "/run"], str(canary))
    chain = prober.hostile_chain(links)
    said = prober.build_on(chain, "ls -ld /dev /proc /sys /run; ls -l /dev/null; echo > /dev/null")
    assert "->" not in said
    assert "crw-rw-rw-" in said


def test_row_124_the_null_device_is_the_real_one(prober, canary):
    live = prober.hostile({"/dev/null": f"{canary}/file"})
    try:
        said = say(live, "ls -l /dev/null; echo lost > /dev/null; cat /proc/interrupts | wc -c")
    finally:
        live.close()
    assert said.startswith("crw-rw-rw-")
    assert said.endswith("0\n")


@pytest.mark.parametrize("kind", ["file", "missing", "link to itself"])
def test_row_126_proc_and_sys_are_mounted_whatever_the_image_has_there(prober, canary, kind):
    live = prober.hostile({"/proc": kind, "/sys": kind})
    try:
        said = say(live, "head -n 1 /proc/self/status; ls /sys/class/net; cat /proc/mounts")
    finally:
        live.close()
    assert said.startswith("Name:\thead\nlo\n")
    assert "proc /proc proc" in said


# Rule 3: users are numbers, resolved by us


@pytest.mark.parametrize("text", ["0x0", "-1", "4294967296", "2147483648", "nobody-here", "0 0"])
def test_row_129_what_is_no_user_never_becomes_root(prober, text):
    with pytest.raises(CellError):
        resolve_user("root:x:0:0::/root:/bin/sh\n", "root:x:0:\n", text)


def test_row_129_an_exec_is_who_the_first_process_is(prober):
    with prober.live() as live:
        live.start(["sleep", "100"])
        said = read(live.exec(["id", "-u"])).split()
        assert said == [str(live.user.uid)]


def test_rule_3_the_runtime_is_given_numbers_alone():
    spec = Process(args=("x",), uid=1815, gid=1852, groups=(4,)).to_spec(hosts_limits(), nproc=None)
    assert spec["user"] == {"uid": 1815, "gid": 1852, "umask": 0o022, "additionalGids": [4]}


def hosts_limits():
    from container_kernel.runtime.bundle import Limits

    return Limits()
