"""From cells to layers: what is frozen, what is not, and what the user is told."""

import contextlib
import hashlib
import http.server
import json
import os
import re
import threading
import time

import pytest

from container_kernel import syscalls
from container_kernel.build.cancel import Cancel
from container_kernel.build.events import StepFailed, StepFinished, StepLog, StepStarted
from container_kernel.build.step import Base, Copy, Download, Setting, Shell
from container_kernel.errors import (
    BadArguments,
    BaseNotFound,
    CellError,
    DigestMismatch,
    InputNotFound,
    Interrupted,
    NoBase,
    RuntimeFailed,
    StoreError,
)
from container_kernel.errors import StepFailed as StepFailedError
from container_kernel.record import replace
from container_kernel.runtime import sweeper

pytestmark = pytest.mark.privileged


def test_a_step_is_a_layer(bench, unique):
    bench.build("a", Shell(f"{unique}\necho hello > /greeting"))
    assert len(bench.image().layers) == 2
    assert bench.output("cat /greeting") == "hello\n"


def test_the_second_time_it_is_cached(bench, make_bench, unique):
    step = Shell(f"{unique}\nhead -c 9 /dev/urandom > /random")
    bench.build("a", step)
    again = make_bench()
    again.build("base", Base("busybox"))
    again.build("a", step)
    assert again.image().digest == bench.image().digest
    assert [event.cached for event in again.kinds(StepFinished)] == [True, True]


def test_the_log_arrives_while_it_runs(bench, unique):
    bench.build("a", Shell(f"{unique}\necho out; echo err >&2"))
    assert "".join(event.text for event in bench.kinds(StepLog)) == "out\nerr\n"


def test_editing_a_cell_replaces_it_and_what_follows_is_built_again(bench, unique):
    bench.build("a", Shell(f"{unique}\necho one > /a"))
    bench.build("b", Shell(f"{unique}\ncat /a > /b"))
    bench.build("a", Shell(f"{unique}\necho two > /a"))
    assert bench.workbench.stages["main"].is_stale
    assert bench.output("cat /b; ls / | grep -c '^[ab]$'") == "two\n2\n"


def test_running_a_cell_twice_changes_nothing(bench, unique):
    for _ in range(2):
        bench.build("a", Shell(f"{unique}\necho x >> /a"))
    assert bench.output("cat /a") == "x\n"


def test_a_new_cell_goes_where_the_notebook_has_it(bench, unique):
    bench.build("c", Shell(f"{unique}\necho c >> /order"))
    bench.build("b", Shell(f"{unique}\necho b >> /order"), order=["base", "b", "c"])
    assert bench.output("cat /order") == "b\nc\n"


def test_the_same_text_is_a_step_in_each_stage_it_is_run_in(make_bench, folder, unique):
    notebook = folder / "n.ipynb"
    bench = make_bench(notebook=notebook)
    step = Shell(f"echo x >> /both {unique}")
    cells = {"%base busybox --as one": Base("busybox", "one"), "%%build\n" + step.body: step}
    for code, item in {**cells, "%base busybox --as two": Base("busybox", "two")}.items():
        bench.workbench.build(None, code, (item,), on_event=lambda _: None, cancel=Cancel())
    for code, item in list(cells.items())[1:] * 2:
        bench.workbench.build(None, code, (item,), on_event=lambda _: None, cancel=Cancel())
    assert [bench.output("cat /both", stage) for stage in ("one", "two")] == ["x\n", "x\n"]
    one, code = cells
    texts = [one, code, "%base busybox --as two", code]
    document = {"cells": [{"cell_type": "code", "source": text} for text in texts]}
    notebook.write_text(json.dumps(document))
    again = make_bench(notebook=notebook)
    assert again.workbench.recall()
    assert [again.output("cat /both", stage) for stage in ("one", "two")] == ["x\n", "x\n"]


def test_a_deleted_cell_is_out_of_the_chain(bench, unique):
    bench.build("a", Shell(f"{unique}\ntouch /a"))
    bench.build("b", Shell(f"{unique}\ntouch /b"))
    bench.workbench.forget(["a"])
    assert bench.output("ls /a /b 2>/dev/null") == "/b\n"


def test_a_failing_step_says_command_code_and_last_lines(bench, unique):
    with pytest.raises(StepFailedError) as caught:
        bench.build("a", Shell(f"{unique}\necho almost there\nexit 3", name="mine"))
    assert caught.value.exit_code == 3
    assert "%%build mine" in str(caught.value)
    assert "almost there" in str(caught.value)
    assert [event.exit_code for event in bench.kinds(StepFailed)] == [3]


def test_a_failed_cell_leaves_the_environment_as_it_was(bench, unique):
    bench.build("a", Shell(f"{unique}\necho kept > /a"))
    before = bench.image().digest
    with pytest.raises(StepFailedError):
        bench.build("a", Shell(f"{unique}\necho lost > /a; false"))
    with pytest.raises(StepFailedError):
        bench.build("b", Shell(f"{unique}\ntouch /b; false"))
    assert bench.image().digest == before


def test_row_141_an_interrupted_step_is_killed_whole_and_freezes_nothing(bench, unique):
    cancel = Cancel()
    threading.Timer(0.5, cancel.set).start()
    with pytest.raises(Interrupted):
        bench.build("a", Shell(f"{unique}\ntrap '' INT TERM; sleep 99 & sleep 99"), cancel=cancel)
    assert [event.interrupted for event in bench.kinds(StepFailed)] == [True]
    assert len(bench.image().layers) == 1


def test_a_step_that_writes_nothing_is_a_layer_too(bench, unique):
    bench.build("a", Shell(f"{unique}\n:"))
    assert bench.image().layers[-1].size == 1024


def test_a_step_without_a_shell_left_says_so(bench, unique):
    bench.build("a", Shell(f"{unique}\nrm /bin/sh"))
    with pytest.raises(StepFailedError, match="no /bin/sh"):
        bench.build("b", Shell(f"{unique}\necho"))


def test_why_a_step_was_not_started_is_not_taken_for_a_missing_shell(bench, unique):
    bench.build("a", Shell(f"{unique}\nrm /bin/sh; echo > /bin/sh"))
    with pytest.raises(RuntimeFailed, match=r"(?i)permission denied"):
        bench.build("b", Shell(f"{unique}\necho"))


def test_row_141_a_daemon_of_a_step_is_gone_before_it_is_frozen(bench, unique):
    bench.build(
        "a", Shell(f"{unique}\n(while :; do echo x >> /log; sleep 0.01; done) &\nsleep 0.1")
    )
    assert bench.image().layers[-1].size > 0


def test_settings_make_no_layer_and_reach_steps_and_runs(bench, unique):
    bench.build("a", Setting("env", ("GREETING=hi",)), Setting("label", ("who=me",)))
    bench.build("b", Shell(f"{unique}\necho $GREETING > /said"))
    image = bench.image()
    assert len(image.layers) == 2
    assert image.config.labels["who"] == "me"
    assert bench.output("cat /said; echo $GREETING") == "hi\nhi\n"


def test_workdir_is_where_a_step_works(bench, unique):
    bench.build("a", Setting("workdir", ("/srv/app",)), Shell(f"{unique}\npwd > here"))
    assert bench.output("cat /srv/app/here") == "/srv/app\n"


def test_copy_takes_files_by_content(bench, folder, unique):
    (folder / "data.csv").write_text(unique)
    bench.build("a", Copy(("data.csv",), "/srv/"))
    first = bench.image().digest
    (folder / "data.csv").touch()
    bench.build("a", Copy(("data.csv",), "/srv/"))
    assert bench.image().digest == first
    (folder / "data.csv").write_text(unique + "!")
    bench.build("a", Copy(("data.csv",), "/srv/"))
    assert bench.output("cat /srv/data.csv") == unique + "!"


def test_copy_of_a_folder_copies_what_is_in_it(bench, folder):
    (folder / "src/deep").mkdir(parents=True)
    (folder / "src/deep/file").write_text("x")
    (folder / "src/link").symlink_to("deep/file")
    bench.build("a", Copy(("src",), "/opt/app"))
    assert bench.output("cat /opt/app/deep/file; readlink /opt/app/link") == "xdeep/file\n"


@pytest.mark.parametrize("source", ["missing.txt", "../outside", "/etc/passwd", "link/passwd"])
def test_copy_cannot_reach_outside(bench, folder, source):
    (folder / "link").symlink_to("/etc")
    with pytest.raises(InputNotFound):
        bench.build("a", Copy((source,), "/x"))


@pytest.fixture
def server(tmp_path):
    """A web server with one file."""
    (tmp_path / "file.txt").write_text("content")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/file.txt"
        server.shutdown()


def test_download_checks_the_digest(bench, server):
    digest = "sha256:" + hashlib.sha256(b"content").hexdigest()
    with pytest.raises(DigestMismatch, match="found"):
        bench.build("a", Download(server, "sha256:" + "0" * 64))
    with pytest.raises(BadArguments, match="sha256"):
        bench.build("a", Download(server, "sha256:1234"))
    bench.build("a", Download(server, digest, "/srv/"))
    assert bench.output("cat /srv/file.txt") == "content"


def test_a_download_that_is_there_needs_no_network(bench, server):
    digest = "sha256:" + hashlib.sha256(b"content").hexdigest()
    bench.build("a", Download(server, digest))
    bench.build("a", Download("http://127.0.0.1:9/file.txt", digest, "/elsewhere"))
    assert bench.output("cat /elsewhere") == "content"


def test_the_site_reaches_steps_and_no_layer(bench, unique):
    bench.build("a", Shell(f"{unique}\nls -A /run/site > /seen; ls -A /run /etc > /names"))
    assert bench.output("ls -A /run/site /run/step 2>/dev/null; cat /etc/hosts") == (
        "127.0.0.1 localhost\n::1 localhost\n"
    )
    frozen = bench.workbench.store.snapshots.get(bench.image().chain_id)
    names = {path.name for path in frozen.path.rglob("*")}
    assert not names & {"site", "step", "hosts", "resolv.conf", "ca.crt", "cache"}


def test_no_base_and_an_unknown_base(make_bench):
    empty = make_bench()
    with pytest.raises(NoBase):
        empty.image()
    with pytest.raises(NoBase):
        empty.build("a", Shell("echo"))
    with pytest.raises(BaseNotFound, match="debian:bookworm") as caught:
        empty.build("a", Base("debain:bookworm"))
    assert "busybox" in str(caught.value)


def test_a_tag_is_a_base(bench, unique):
    bench.build("a", Shell(f"{unique}\necho tagged > /t"))
    bench.tag("mine:1")
    bench.build("b", Base("mine:1", "second"))
    assert bench.output("cat /t", "second") == "tagged\n"


def test_freeze_keeps_what_run_cells_wrote(bench):
    live = bench.workbench.live(on_event=bench.events.append, cancel=Cancel())
    live.start(["/bin/sh", "-c", "echo scratch > ~/note; echo tmp > /tmp/gone"]).wait()
    frozen = bench.workbench.freeze("kept:1")
    bench.build("b", Base("kept:1", "second"))
    assert frozen.digest != bench.image("main").digest
    home = live.user.home
    assert bench.output(f"cat {home}/note; ls /tmp", "second") == "scratch\n"


def test_scratch_survives_a_restart_of_the_process(bench):
    live = bench.workbench.live(on_event=bench.events.append, cancel=Cancel())
    live.start(["/bin/sh", "-c", "echo state > ~/note"]).wait()
    container = live.start(["/bin/sh", "-c", "cat ~/note"])
    container.wait()
    with open(container.stdout, closefd=False) as stdout:
        assert stdout.read() == "state\n"


def test_what_is_written_in_the_work_folder_belongs_to_the_user(bench, folder):
    live = bench.workbench.live(on_event=bench.events.append, cancel=Cancel())
    live.start(["/bin/sh", "-c", "echo x > /work/file"]).wait()
    assert (folder / "file").stat().st_uid == folder.stat().st_uid


def test_two_notebooks_that_build_the_same_step_build_it_once(make_bench, unique):
    step = Shell(f"{unique}\nsleep 0.5; head -c 9 /dev/urandom > /random")
    benches = [make_bench() for _ in range(2)]

    def build(bench):
        bench.build("base", Base("busybox"))
        bench.build("a", step)

    threads = [threading.Thread(target=build, args=(bench,)) for bench in benches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({bench.image().digest for bench in benches}) == 1
    ran = [e for b in benches for e in b.kinds(StepFinished) if e.number == 1 and not e.cached]
    assert len(ran) == 1
    assert all(bench.kinds(StepStarted) for bench in benches)


@pytest.fixture
def tiny(tmp_path, settings, make_bench):
    """A workbench whose store lies on a disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    syscalls.mount("tmpfs", str(disk), "tmpfs", data="size=8m")
    yield make_bench(replace(settings, home=disk / "home")), disk
    syscalls.umount(str(disk), syscalls.MNT_DETACH)


def test_a_full_disk_is_named_and_loses_nothing(tiny):
    bench, disk = tiny
    bench.build("base", Base("busybox"))
    bench.build("a", Shell("echo kept > /a"))
    with pytest.raises(StepFailedError, match="No space left"):
        bench.build("b", Shell("cat /dev/zero > /big"))
    ballast = os.open(disk / "ballast", os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while True:
            os.write(ballast, bytes(4096))
    os.close(ballast)
    with pytest.raises((StoreError, StepFailedError), match="No space left"):
        bench.build("c", Shell("echo c > /c"))
    assert [event.number for event in bench.kinds(StepFailed)] == [2, 2]
    (disk / "ballast").unlink()
    bench.build("c", Shell("echo c > /c"))
    assert bench.output("cat /a /c") == "kept\nc\n"


def test_row_36_scratch_that_a_full_disk_cannot_hold_twice_is_lost_to_nobody(tiny):
    """%freeze copies it: for that the disk is too full, until there is more room."""
    bench, disk = tiny
    bench.build("base", Base("busybox"))
    live = bench.workbench.live(on_event=bench.events.append, cancel=Cancel())
    live.start(["/bin/sh", "-c", "head -c 4m /dev/zero > ~/large"]).wait()
    before = len(list((disk / "home/active").iterdir()))
    with pytest.raises(StoreError, match=r"cannot be copied: No space left(?s:.*)free space"):
        bench.workbench.freeze("kept:1")
    assert len(list((disk / "home/active").iterdir())) == before
    syscalls.mount("tmpfs", str(disk), "tmpfs", syscalls.MS_REMOUNT, "size=32m")
    assert len(bench.workbench.freeze("kept:1").layers) == 2


def test_row_42_what_cannot_be_copied_is_said_and_what_is_deep_is_removed(tiny):
    bench, disk = tiny
    bench.build("base", Base("busybox"))
    live = bench.workbench.live(on_event=bench.events.append, cancel=Cancel())
    deep = "cd ~; i=0; while [ $i -lt 30 ]; do mkdir {0}; cd {0}; i=$((i+1)); done"
    live.start(["/bin/sh", "-c", deep.format("d" * 200)]).wait()
    with pytest.raises(CellError, match="cannot be copied: File name too long"):
        bench.workbench.freeze("kept:1")
    bench.workbench.close()
    assert sweeper.drain()
    assert list((disk / "home/active").iterdir()) == []


def test_row_42_an_interrupt_is_heard_while_a_hole_is_hashed(bench, unique):
    """A file of a terabyte without content is as long to a hasher as any other."""
    cancel = Cancel()
    threading.Timer(0.7, cancel.set).start()
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        bench.build(
            "a",
            Shell(f"{unique}\ndd if=/dev/null of=/hole bs=1M seek=1048576 count=0"),
            cancel=cancel,
        )
    assert time.monotonic() - begun < 20
    assert len(bench.image().layers) == 1


@pytest.mark.slow
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_a_debian_base_names_no_site(make_bench, release):
    bench = make_bench()
    bench.build("base", Base(f"debian:{release}"))
    address = re.compile(r"^\s*(?:deb|URIs:)\s+(\S+)", re.MULTILINE)
    used = bench.output("cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null")
    debians_own = bench.output("cat /usr/share/doc/apt/examples/*sources*")
    assert set(address.findall(used)) == set(address.findall(debians_own))
    assert f"VERSION_CODENAME={release}" in bench.output("cat /etc/os-release")
