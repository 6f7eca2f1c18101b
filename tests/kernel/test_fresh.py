"""``%%run``: a cell in a container of its own, for real."""

from __future__ import annotations

import os

import pytest

from container_kernel.runtime.host import Host

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def kernel(folder, tmp_path_factory, oci_runtime):
    from tests.kernel.test_real import RealKernel

    kernel = RealKernel(folder, tmp_path_factory.mktemp("home"), oci_runtime)
    assert kernel.run("%base busybox")[0]["status"] == "ok"
    yield kernel
    kernel.close()


@pytest.fixture
def has_cgroup(entered, oci_runtime):
    return Host.open(entered, oci_runtime).runtime.cgroup is not None


def failure(kernel, code):
    reply, _ = kernel.run(code)
    assert reply["status"] == "error", code
    return reply["evalue"]


def test_input_is_a_file_of_the_notebooks_folder(kernel, folder):
    (folder / "in.txt").write_text("from the file\n")
    assert kernel.text("%%run --stdin in.txt cat") == "from the file\n"
    assert kernel.text("%%run --stdin in.txt\nread line; echo got $line") == "got from the file\n"


def test_no_link_leads_to_a_file_of_the_host(kernel, folder):
    kernel.run("ln -sf /etc/passwd /work/link; ln -sf ../../../../etc/passwd /work/up")
    for name in ("link", "up", "../x", "/etc/passwd", "missing"):
        assert name in failure(kernel, f"%%run --stdin {name} cat")
    if not (folder / "fifo").exists():
        os.mkfifo(folder / "fifo")
    assert "--stdin takes a file" in failure(kernel, "%%run --stdin fifo cat")
    assert "--stdin takes a file" in failure(kernel, "%%run --stdin . cat")


def test_input_is_what_an_earlier_cell_printed(kernel):
    kernel.run("echo from a run cell; echo aside >&2")
    assert kernel.text("%%run --stdin-cell last cat") == "from a run cell\n"
    assert kernel.text("%%run --stdin-cell last\ntr a-z A-Z") == "FROM A RUN CELL\n"
    number = kernel.run("%%sh\necho numbered")[0]["execution_count"]
    kernel.run("true")
    assert kernel.text(f"%%run --stdin-cell {number} cat") == "numbered\n"
    assert "no cell '9999'" in failure(kernel, "%%run --stdin-cell 9999 cat")


def test_input_comes_from_one_place(kernel):
    said = failure(kernel, "%%run --stdin a --stdin-cell last cat\nbody")
    assert "found --stdin and --stdin-cell and the body" in said


def test_meters_are_shown_when_asked_also_of_a_failure(kernel):
    assert kernel.text("%%run true") == ""
    shown = kernel.text("%%run --meters\nhead -c 50000000 /dev/zero | md5sum >/dev/null; exit 3")
    assert all(word in shown for word in ("took ", "CPU ", "memory ", " at most"))


def test_each_run_is_fresh_on_any_image(kernel):
    kernel.run("%%run\necho left > /tmp/left")
    assert "exit code 1" in failure(kernel, "%%run --fresh\ncat /tmp/left")
    kernel.run("%base busybox --as other")
    kernel.run("%%build\necho other > /name")
    kernel.run("%use main")
    assert kernel.text("%%run --stage other cat /name") == "other\n"
    assert "exit code 1" in failure(kernel, "%%run --image busybox cat /name")
    assert "--stage or --image" in failure(kernel, "%%run --image busybox --stage other true")
    assert "nowhere" in failure(kernel, "%%run --image nowhere true")


def test_as_root_is_root_of_the_image(kernel):
    assert kernel.text("%%run id -u") != "0\n" or os.getuid() != 0
    assert kernel.text("%%run --as-root id -u").endswith(".0\n")  # behind the warning


def test_the_init_process_is_not_counted(kernel, has_cgroup):
    if not has_cgroup:
        pytest.skip(
            "this host lends no cgroup: what is counted then is all of the user's processes"
        )
    assert kernel.text("%%run --pids 1 echo one") == "one\n"


def test_limits_that_hold_end_the_command(kernel, has_cgroup):
    if not has_cgroup:
        pytest.skip("this host lends no cgroup, so no memory limit is in force")
    assert "the limit of 32 MiB" in failure(kernel, "%%run --memory 32m\ntail /dev/zero")
    assert "can't fork" in kernel.text("%%run --pids 4\nfor i in 1 2 3 4 5; do sleep 1 & done")


def test_limits_that_do_not_hold_are_said(kernel, has_cgroup):
    said = kernel.text("%%run --memory 512m --cpus 1 true")
    assert ("--cpus is not in force" in said) is not has_cgroup
    assert ("--memory is held by RLIMIT_DATA, for each process" in said) is not has_cgroup


def test_a_timeout_ends_it(kernel):
    assert "stopped after 0.3 s" in failure(kernel, "%%run --timeout 0.3s\nsleep 60")
