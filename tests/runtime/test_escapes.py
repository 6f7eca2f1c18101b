"""Threats, group H: ways out of a container that others had, tried on harmless canaries.

A canary is a folder of the host that an image, a cell or a file points at; it stays as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from container_kernel.errors import CellError, HostError
from container_kernel.record import replace
from container_kernel.runtime import oci_runtime as runtimes
from container_kernel.runtime.bundle import ContainerSpec, Process
from container_kernel.runtime.host import find_runtime, find_tool, runtime_version
from container_kernel.runtime.identity import resolve_user
from tests.runtime.facts import read
from tests.runtime.hostile import FIFO, FILE, LOOP, MISSING, say

pytestmark = pytest.mark.privileged

# Rule 1: no descriptor leaks, and no working directory leads out (CVE-2024-21626)

PLACES = [*(f"/proc/self/fd/{number}" for number in range(41)), "/proc/1/cwd", "/proc/self/cwd"]


@pytest.fixture
def leaked():
    """Folders of the host, open and inheritable in the process that starts containers."""
    fds = [os.open("/", os.O_RDONLY) for _ in range(40)]
    for fd in fds:
        os.set_inheritable(fd, True)
    yield fds
    for fd in fds:
        os.close(fd)


def test_row_123_no_working_directory_is_a_descriptor_of_the_host(hostile, leaked):
    with hostile.live({}) as live:
        for place in PLACES:
            with pytest.raises(CellError):
                live.start(["pwd"], cwd=place)
        live.start(["sleep", "100"])
        for place in PLACES:
            with pytest.raises(CellError):
                live.exec(["pwd"], cwd=place)


def test_row_123_a_link_of_the_image_to_a_descriptor_is_refused(hostile, leaked):
    links = {f"/out{number}": f"/proc/self/fd/{number}" for number in range(3, 41)}
    with hostile.live(links) as live:
        for link in links:
            with pytest.raises(CellError):
                live.start(["pwd"], cwd=link)


@pytest.mark.parametrize("where", ["/proc/self/fd/3", "/proc/1/cwd", "/sys", "/dev/fd/3", "/out"])
def test_row_123_no_build_step_works_in_such_a_place(hostile, leaked, where):
    with pytest.raises(CellError):
        hostile.build({"/out": "/proc/self/fd/7"}, "pwd", workdir=where)


def test_row_123_the_oci_runtime_itself_has_nothing_to_be_led_by(place, hostile, leaked):
    """Past all checks of ours: a working directory that a leak would make the host's root."""
    with hostile.live({}) as live:
        for number in range(3, 13):
            process = Process(args=("/bin/ls", "/"), cwd=f"/proc/self/fd/{number}")
            spec = ContainerSpec(rootfs=live.rootfs.path, process=process, idmap=place.store.idmap)
            try:
                said = read(place.host.runtime.run(spec, init=False))
            except HostError:
                continue
            assert "probe" in said.split()  # a folder of the container, if any


def test_rule_1_the_oci_runtime_is_started_with_three_descriptors(place, tmp_path, leaked):
    seen, fake = tmp_path / "seen", tmp_path / "runc"
    fake.write_text(f"#!/bin/sh\npwd > {seen}; readlink /proc/$$/fd/* >> {seen}; exit 1\n")
    fake.chmod(0o755)
    folder = tmp_path / "run"
    (folder / "bundles").mkdir(parents=True)
    runtime = runtimes.OciRuntime(fake, folder, is_rootless=True, cgroup=None)
    spec = ContainerSpec(rootfs=tmp_path, process=Process(args=("x",)), idmap=place.store.idmap)
    with pytest.raises(HostError):
        runtime.run(spec)
    cwd, *held = seen.read_text().split()
    assert cwd == "/"
    assert {one for one in held if not one.startswith("pipe:")} <= {
        "/dev/null",
        str(fake),
        str(seen),
    }


# Rule 2: the top of the root file system is ours (CVE-2026-41579, -47766, -2025-31133, -52565)

TOPS = ("/dev", "/proc", "/sys", "/etc", "/run", "/work")
BELOW = tuple(f"/dev/{name}" for name in ("pts", "shm", "null", "mqueue", "console", "fd", "ptmx"))


@pytest.mark.parametrize("places", [TOPS, BELOW], ids=["tops", "below"])
def test_row_127_links_where_runtimes_mount_and_write_lead_nowhere(hostile, canary, places):
    links = dict.fromkeys(places, str(canary))
    with hostile.live(links, as_root=True) as live:
        said = say(live, "ls -ld /dev /proc /sys /etc /run /work; echo > /dev/null; ls /etc")
    assert "->" not in said
    assert "hosts" in said.split()
    said = hostile.build(links, "ls -ld /dev /proc /sys /run; echo > /dev/null")
    assert "->" not in said


@pytest.mark.parametrize("name", ["hosts", "resolv.conf", "hostname", "passwd", "group"])
def test_row_127_a_link_where_we_write_leads_nowhere(hostile, canary, name):
    link = {f"/etc/{name}": f"{canary}/file"}
    with hostile.live(link) as live:
        assert "untouched" not in say(live, f"cat /etc/{name}")
    assert "untouched" not in hostile.build(link, f"cat /etc/{name} 2>&1 || true")


def test_row_124_the_null_device_is_the_real_one(hostile, canary):
    with hostile.live({"/dev/null": f"{canary}/file"}) as live:
        said = say(live, "ls -l /dev/null; echo lost > /dev/null; cat /proc/interrupts | wc -c")
    assert said.startswith("crw-rw-rw-")
    assert said.endswith("0\n")


def test_row_125_no_terminal_is_asked_of_the_oci_runtime():
    process = Process(args=("x",)).to_spec(())
    assert process["terminal"] is False


@pytest.mark.parametrize("kind", [FILE, LOOP, MISSING])
def test_row_126_proc_and_sys_are_mounted_whatever_the_image_has_there(hostile, kind):
    with hostile.live({"/proc": kind, "/sys": kind}) as live:
        said = say(live, "head -n 1 /proc/self/status; ls /sys/class/net; cat /proc/mounts")
    assert said.startswith("Name:\thead\nlo\n")
    assert "proc /proc proc" in said


# Rule 3: users are numbers, resolved by us, inside


@pytest.mark.parametrize(
    "text", ["0x0", "-1", "4294967296", "2147483648", "nobody", "0 0", "root\n"]
)
def test_row_129_what_is_no_user_is_an_error_and_never_root(text):
    with pytest.raises(CellError):
        resolve_user("root:x:0:0::/root:/bin/sh\n", "root:x:0:\n", text)


def test_row_129_an_exec_is_who_the_first_process_is(hostile):
    with hostile.live({}) as live:
        live.start(["sleep", "100"])
        assert read(live.exec(["id", "-u"])).split() == [str(live.user.uid)]


def test_a_process_can_be_started_beside_one_that_has_only_just_been(hostile):
    """As an ordinary user crun was refused to join it, once in some dozen times."""
    with hostile.live({}) as live:
        for _ in range(10):
            live.start(["sleep", "100"])
            assert read(live.exec(["echo", "beside"])) == "beside\n"


def test_row_129_the_oci_runtime_is_given_numbers():
    user = Process(args=("x",), uid=1815, gid=1852, groups=(4,)).to_spec(())
    assert user["user"] == {"uid": 1815, "gid": 1852, "umask": 0o022, "additionalGids": [4]}


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_row_133_what_names_users_may_be_anything(hostile, canary, name):
    """A FIFO would wait for ever, a gigabyte would be read whole, a link would lead out."""
    with hostile.live({f"/etc/{name}": FIFO}) as live:
        assert say(live, "id -u").split() == [str(live.user.uid)]


# Rule 4: nothing of an image or a notebook becomes a word to the OCI runtime

LABELS = (
    ("run.oci.hooks.stderr", "/tmp/x"),
    ("run.oci.keep_original_groups", "1"),
    ("run.oci.handler", "krun"),
    ("org.systemd.property.ExecStart", "/bin/true"),
    ("io.container-kernel.mounts", "/:/host"),
    ("io.container-kernel.as-root", "true"),
)


def test_rule_4_labels_and_annotations_of_images_never_reach_the_runtime(
    hostile, place, monkeypatch
):
    told = []
    write = runtimes.bundle.write

    def noted(folder, spec, held):
        write(folder, spec, held)
        told.append((folder / "config.json").read_text())

    monkeypatch.setattr(runtimes.bundle, "write", noted)
    config = replace(hostile.image.config, labels=dict(LABELS))
    with hostile.live({}, config=config) as live:
        assert say(live, "id -u; ls / | grep host; true").split() == [str(live.user.uid)]
    (text,) = told
    spec = json.loads(text)
    assert "hooks" not in spec
    assert {*spec.get("annotations", {})} <= {"run.oci.seccomp_bpf_data"}  # ours, see `compiled`
    assert "sysctl" not in spec["linux"]
    assert not any(key in text for key, _ in LABELS)
    assert spec["process"]["terminal"] is False


# Rule 5: one writer per upper; mount points are ours


def test_row_128_what_two_containers_share_cannot_be_swapped_under_a_start(hostile, canary):
    """The shared folder is bound before a container of it starts; links in it are nobody's."""
    with hostile.live({}) as first:
        say(first, f"rm -rf /work/sub; ln -s {canary} /work/sub; rm -rf /run/container-kernel/*")
        for _ in range(5):
            with hostile.live({}) as second:
                assert "untouched" not in say(second, "cat /work/sub/file; ls /work/sub")
        say(first, "rm -f /work/sub")


def test_rule_5_no_two_containers_have_one_upper(hostile):
    with hostile.live({}) as first, hostile.live({}) as second:
        assert first.rootfs.active.upper != second.rootfs.active.upper
        say(first, "echo x > /tmp/mine")
        assert "No such file" in say(second, "cat /tmp/mine")
        assert "x" in say(first, "cat /tmp/mine")  # the same container, started anew


# Rule 7: the runtime and its tools are found by absolute path (rows 134 and 172 too)


@pytest.mark.parametrize("name", ["crun", "runc", "newuidmap", "catatonit", "pasta"])
def test_rule_7_a_program_of_the_notebooks_folder_is_never_taken(tmp_path, monkeypatch, name):
    fake = tmp_path / name
    fake.write_text("#!/bin/sh\nexit 0\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:.:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert find_tool(name) != fake
    with pytest.raises(HostError):
        find_runtime(f"./{name}")


def test_rule_7_the_runtimes_version_is_known(place):
    assert len(runtime_version(place.host.runtime.path)) >= 2


# By way of the notebook's folder and what is shared


def test_freezing_scratch_follows_no_link_out(hostile, canary):
    """`/var` as a link: what is never frozen is removed from the copy, not from the host."""
    (canary / "tmp").mkdir()
    with hostile.live({"/var": str(canary)}) as live:
        say(live, "echo > /tmp/x")
        upper = live.rootfs.active.upper
        (upper / "var").symlink_to(canary)
        active = live.copy_scratch()
        hostile.place.store.snapshots.remove(active)
    assert (canary / "tmp").is_dir()
    (canary / "tmp").rmdir()


def test_nothing_swaps_a_folder_for_a_link_while_scratch_is_copied(hostile, canary):
    swap = f"mkdir -p /tmp/a/b; echo > /tmp/a/b/f; ln -s {canary} /tmp/l; echo ready; " + (
        "while :; do mv /tmp/a /tmp/c; mv /tmp/l /tmp/a; mv /tmp/a /tmp/l; mv /tmp/c /tmp/a; done"
    )
    with hostile.live({}) as live:
        running = live.start(["sh", "-c", swap])
        assert os.read(running.stdout, 6) == b"ready\n"
        for _ in range(20):
            active = live.copy_scratch()
            found = subprocess.run(
                ["grep", "-r", "untouched", active.upper], capture_output=True, check=False
            )
            hostile.place.store.snapshots.remove(active)
            assert found.stdout == b""


@pytest.mark.parametrize("module", ["container_kernel", "json", "zmq", "signal", "sitecustomize"])
def test_a_kernel_imports_nothing_that_run_cells_left_in_the_notebooks_folder(
    hostile, tmp_path, canary, module
):
    """What a cell writes to /work would run on the host with the notebook's next kernel."""
    spec = json.loads((Path(runtimes.__file__).parents[1] / "kernelspec/kernel.json").read_text())
    (tmp_path / f"{module}.py").write_text(f"open({str(canary / 'escaped')!r}, 'w')")
    argv = [sys.executable, *spec["argv"][1:-2], "-f", "no-such-file"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "no-such-file" in done.stderr
