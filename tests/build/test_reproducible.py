"""Same steps, same bytes: what differs is named, and what a lock names is what is built."""

import json
import os
import shutil
import stat
import struct
import time
from pathlib import Path

import pytest

from container_kernel.build import lock as locks
from container_kernel.build import volatile
from container_kernel.build.cancel import Cancel
from container_kernel.build.step import Base, Copy, Setting, Shell
from container_kernel.errors import LockBroken, LockDrift
from container_kernel.kernel import records
from container_kernel.kernel.verifying import verify
from container_kernel.record import replace

pytestmark = pytest.mark.privileged


@pytest.fixture
def notebook(folder):
    """A notebook file; what its cells say comes from the test."""
    path = folder / "some.ipynb"
    path.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.fixture
def make(make_bench, settings, tmp_path, notebook):
    """Builds steps on busybox in a fresh store, or in the one of that name."""

    def make(*steps, home="home", **config):
        there = replace(settings, home=tmp_path / home, **config)
        bench = make_bench(there, notebook=notebook)
        bench.build("base", Base("busybox"))
        for number, step in enumerate(steps):
            bench.build(f"cell-{number}", step)
        return bench

    return make


def judge(bench):
    notes = []
    found = verify(
        bench.workbench, on_event=bench.events.append, cancel=Cancel(), note=notes.append
    )
    assert notes
    return found


def test_what_is_the_same_again_is_reproducible(make):
    found = judge(
        make(Shell("mkdir /a; echo hello > /a/b; ln -s b /a/c"), Setting("env", ("A=b",)))
    )
    assert found.is_reproducible
    assert found.to_json()["first_difference"] is None


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("date > /when", "the clock"),
        ("date +%s > /when", "the clock"),
        ("head -c 32 /dev/urandom > /seed", "random data"),
        ("head -c 32 /dev/urandom | sha256sum > /id", "random data"),
        ("echo x > $(mktemp /run-XXXXXX)", "a temporary name"),
        ("echo made in $(mktemp -d /tmp/XXXXXX) > /from", "a temporary path"),
    ],
)
def test_a_step_that_draws_on_something_else_is_named(make, script, cause):
    found = judge(make(Shell("echo same > /same"), Shell(script)))
    assert not found.is_reproducible
    assert (found.first.number, found.first.step) == (3, f"%%build {script}")
    assert found.first.causes == [cause]


def test_the_difference_of_two_texts_is_shown(make):
    found = judge(make(Shell("echo one > /a; date +%N%s >> /a")))
    (file,) = found.first.files
    assert file.path == "/a"
    assert [line[0] for line in file.lines] == ["-", "+"]


def test_no_store_is_left_behind(make):
    bench = make(Shell("true"))
    judge(bench)
    assert list(bench.workbench.store.home.glob("verify-*")) == []


def test_a_base_that_no_cell_makes_is_lent(make, make_bench, settings, tmp_path):
    first = make(Shell("echo below > /below"))
    first.tag("mine")
    again = make_bench(replace(settings, home=tmp_path / "home"))
    again.build("base", Base("mine"))
    again.build("more", Shell("cat /below > /above"))
    assert judge(again).is_reproducible


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_the_umask_decides_nothing(make, folder, mask):
    (folder / "input").write_text("x")
    (folder / "input").chmod(0o644)
    steps = Shell("mkdir /made; echo x > /made/x"), Copy(("input",), "/in/put")
    one = make(*steps).image().digest
    before = os.umask(mask)
    try:
        other = make(*steps, home="other").image().digest
    finally:
        os.umask(before)
    assert one == other


def test_the_folder_of_the_notebook_decides_nothing(make, make_bench, settings, folder, tmp_path):
    step = Copy(("data",), "/data")
    (folder / "data").mkdir()
    for name in "cab":
        (folder / "data" / name).write_text(name)
    moved = tmp_path / "elsewhere ü"
    moved.mkdir()
    shutil.copytree(folder / "data", moved / "data", copy_function=shutil.copyfile)
    one = make(step).image().digest
    there = make_bench(replace(settings, home=tmp_path / "other"), directory=moved)
    there.build("base", Base("busybox"))
    there.build("cell", step)
    assert there.image().digest == one


# ---------------------------------------------------------------- what is volatile


@pytest.mark.parametrize("pause_s", [0, 0.1])
def test_a_folder_that_a_step_only_passes_through_stays_as_it_was(make, pause_s):
    """Ours lies on that of the image, made when the first container was started, and is what the
    host kernel copies with a file that changes in it.
    """
    bench = make(Shell("chmod 751 /etc; chown 3:4 /etc; touch -d '2001-02-03 00:00:00' /etc"))
    time.sleep(pause_s)  # somebody thinks
    bench.build("last", Shell("echo more >> /etc/passwd"))
    chain = bench.workbench.store.snapshots.chain(bench.image().chain_id)
    before, after = ((layer.path / "etc").stat() for layer in chain[-2:])
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert (stat.S_IMODE(after.st_mode), after.st_mtime) == (0o751, 981158400)


def test_the_way_to_a_containers_sockets_is_open_whatever_the_image_says(make):
    bench = make(Shell("chmod 700 /run"))
    assert bench.output("id -u; cd /run/container-kernel && pwd") == "1000\n/run/container-kernel\n"


@pytest.mark.parametrize("rule", volatile.RULES, ids=lambda rule: rule.name)
def test_volatile_files_are_not_in_a_layer(make, rule):
    paths = [path.replace("**", "deep/file").replace("*", "x") for path in rule.paths]
    script = "".join(f"mkdir -p {Path(path).parent}; date > {path}\n" for path in paths)
    bench = make(Shell(f"{script}\necho stays > /stays"))
    layer = bench.workbench.store.snapshots.get(bench.image().chain_id)
    found = {f"/{p.relative_to(layer.path)}" for p in layer.path.rglob("*") if p.is_file()}
    assert found == {"/stays"}
    assert all(volatile.rule_of(path) == rule for path in paths)


def test_a_rule_does_not_reach_through_a_link(make):
    bench = make(
        Shell("mkdir -p /keep /var/lib/apt; echo x > /keep/x; ln -s /keep /var/lib/apt/lists")
    )
    assert bench.output("cat /keep/x") == "x\n"


def test_byte_code_names_the_time_its_source_is_frozen_with(make):
    swapped = r"s/\(..\)\(..\)\(..\)\(..\)/\\x\4\\x\3\\x\2\\x\1/"  # little-endian, for printf
    code = f"""mkdir /m; echo x > /m/a.py
time=$(printf %08x $(stat -c %Y /m/a.py) | sed '{swapped}')
printf "abcd\\0\\0\\0\\0${{time}}size..." > /m/a.pyc"""
    bench = make(Shell(code))
    layer = bench.workbench.store.snapshots.get(bench.image().chain_id)
    (seconds,) = struct.unpack_from("<I", (layer.path / "m/a.pyc").read_bytes(), 8)
    assert seconds == int((layer.path / "m/a.py").stat().st_mtime)
    assert judge(bench).is_reproducible


# ---------------------------------------------------------------- the lock


def lock(bench, notebook):
    made = bench.workbench.lock(on_event=bench.events.append, cancel=Cancel())
    records.write(made, notebook)
    return made


def test_a_lock_reads_as_it_was_written(make, notebook):
    made = lock(
        make(Shell("echo a > /a"), Setting("env", ("A=b",)), Shell("echo b > /b")), notebook
    )
    assert locks.read(notebook) == made
    assert [step.title for step in made.stages["main"].steps] == [
        "%%build echo a > /a",
        "%%build echo b > /b",
    ]


def test_what_is_locked_is_built(make, notebook):
    steps = Shell("echo a > /a"), Shell("echo b > /b")
    digest = lock(make(*steps), notebook).stages["main"].image
    assert make(*steps, home="other", is_locked=True).image().digest == digest


def test_an_edited_step_is_refused(make, notebook):
    lock(make(Shell("echo a > /a")), notebook)
    with pytest.raises(LockDrift, match=r"step 1 is not in the lock: .*echo b"):
        make(Shell("echo b > /b"), is_locked=True)


def test_a_step_that_makes_other_bytes_is_refused(make, notebook):
    random = Shell("head -c 9 /dev/urandom > /r")
    lock(make(random), notebook)
    with pytest.raises(LockDrift, match="made another layer than the lock names"):
        make(random, home="other", is_locked=True)
    make(random, is_locked=True)  # where the very layer is


def test_no_lock_is_an_error(make):
    with pytest.raises(LockBroken, match=r"some\.ipynb has no lock"):
        make(is_locked=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[: len(text) // 2], "ends in the middle"),
        (lambda text: text.replace(":", "", 1), "cannot be read"),
        (lambda text: text.replace('"version": 1', '"version": 2', 1), "this program knows 1"),
        (lambda text: text.replace('"diff_id": "sha256:', '"diff_id": "sha', 1), "is damaged"),
        (lambda text: text.replace('"stages"', '"stage"'), "'stages' is missing"),
        (lambda text: "<<<<<<< ours\n" + text, "a merge that was not finished"),
        (lambda text: text.replace('"size": ', '"size": 1,\n"size": ', 1), "is there twice"),
        (lambda text: "[]", "it has no version"),
        (lambda text: "", "is empty"),
        (lambda text: text[: len(text) // 2].rpartition(",")[0], r"ends in the middle, in line"),
        (lambda text: text.replace('"platform": "', '"platform": "not-'), "is for not-"),
    ],
)
def test_a_bad_lock_says_what_is_wrong(make, notebook, change, complaint):
    lock(make(Shell("echo a > /a")), notebook)
    path = locks.path_of(notebook)
    path.write_text(change(path.read_text()))
    with pytest.raises(LockBroken, match=complaint):
        make(is_locked=True)


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "python", "name": "a", "version": "1 --index-url=http://x", "digest": None},
        {
            "kind": "deb",
            "name": "a;b",
            "version": "1",
            "architecture": "all",
            "file": "a",
            "size": 1,
        },
        {"kind": "npm", "name": "../../x y", "version": "1", "digest": None},
        {"kind": "npm", "name": "x", "version": "1", "digest": None, "path": "x/../../../etc"},
        {"kind": "unheard-of"},
    ],
)
def test_a_lock_cannot_smuggle_words(make, notebook, bad):
    lock(make(Shell("echo a > /a")), notebook)
    path = locks.path_of(notebook)
    data = json.loads(path.read_text())
    data["stages"]["main"]["steps"][0]["inputs"] = [bad]
    path.write_text(json.dumps(data))
    with pytest.raises(LockBroken, match="is damaged"):
        locks.read(notebook)


# ---------------------------------------------------------------- reasons


def reasons_of(bench):
    from container_kernel.display import reasons

    return reasons.text(records.explained(bench.workbench, None))


def test_a_first_time_is_a_miss_and_says_so(make):
    assert "never built here before" in reasons_of(make(Shell("echo a > /a")))


def test_an_edit_is_shown_and_what_follows_from_it(make):
    make(Shell("echo a\necho a > /a"), Shell("cat /a"))
    told = reasons_of(make(Shell("echo a\necho b > /a"), Shell("cat /a")))
    assert "miss in run 2" in told
    assert "-echo a > /a" in told
    assert "+echo b > /a" in told
    assert "the layers below, since step 1 changed" in told


def test_the_second_time_is_a_hit(make):
    make(Shell("echo a > /a"))
    assert "hit: its layer was there" in reasons_of(make(Shell("echo a > /a")))


def test_what_is_all_cached_writes_no_history(make):
    make(Shell("echo a > /a"))
    make(Shell("echo a > /a"))
    home = make(Shell("echo a > /a")).workbench.store.home
    (file,) = (home / "history").iterdir()
    before = file.stat().st_mtime_ns
    make(Shell("echo a > /a"))
    assert file.stat().st_mtime_ns == before


def test_a_change_to_what_was_built_before_is_a_hit_and_shown(make):
    for word in "aba":
        bench = make(Shell(f"echo {word} > /a"))
    told = reasons_of(bench)
    assert "hit, it was built elsewhere, in run 3" in told
    assert "echo b > /a" in told


def test_a_lock_that_cannot_be_read_says_why(make, notebook):
    locks.path_of(notebook).mkdir()
    with pytest.raises(LockBroken, match=r"lock\.json cannot be read: Is a directory"):
        make(Shell("echo a > /a"), is_locked=True)


def test_a_lock_of_an_older_way_to_install_says_so(make, notebook):
    lock(make(Shell("echo a > /a")), notebook)
    path = locks.path_of(notebook)
    data = json.loads(path.read_text())
    data["stages"]["main"]["steps"][0] |= {"meaning": 0, "key": "0" * 64}
    path.write_text(json.dumps(data))
    with pytest.raises(LockDrift, match="as version 0 of %build makes it, this program has"):
        make(Shell("echo a > /a"), is_locked=True)
