"""The commands that lock, verify and explain, as their users call them."""

import json
from pathlib import Path

import pytest

from tests.commands import command, write_notebook

pytestmark = pytest.mark.privileged

FINE = ("%base busybox", "%%build --net none\necho same > /same")
RANDOM = "%%build --net none\nhead -c 16 /dev/urandom > /seed"


def cells(path):
    return {cell["id"]: cell for cell in json.loads(path.read_text())["cells"]}


def test_verify_of_what_is_reproducible_is_exit_code_0(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE)
    done = cli("verify", "a.ipynb", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert said["reproducible"]
    assert said["first_difference"] is None
    assert said["stages"]["main"]["digest"] == said["stages"]["main"]["rebuilt"]


def test_verify_of_what_is_not_is_exit_code_1_and_says_why(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE, RANDOM)
    done = cli("verify", "a.ipynb")
    assert done.returncode == 1
    assert "layer 3 of stage main differs: %%build head -c 16 /dev/urandom > /seed" in done.stdout
    assert "likely cause: random data" in done.stdout
    assert "Traceback" not in done.stderr


def test_verify_right_after_the_build_sees_what_reads_a_clock(cli):
    clock = f"%%build --net none\n: {cli.folder}\ndate +%s > /when"
    write_notebook(cli.folder / "a.ipynb", "%base busybox", clock)
    done = cli("verify", "a.ipynb")
    assert done.returncode == 1
    assert "likely cause: the clock" in done.stdout


def test_a_locked_build_is_the_lock_or_an_error(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE)
    locked = json.loads(cli("lock", "a.ipynb", "--json").stdout)["lock"]
    assert json.loads((cli.folder / "a.lock.json").read_text()) == locked
    built = json.loads(cli("build", "a.ipynb", "--locked", "--json").stdout)
    assert built["stages"]["main"]["digest"] == locked["stages"]["main"]["image"]
    write_notebook(cli.folder / "a.ipynb", FINE[0], FINE[1] + "r")
    done = cli("run", "a.ipynb", "--locked")
    assert done.returncode == 1
    assert "step 1 is not in the lock" in done.stderr


@pytest.mark.parametrize("oci_runtime", ["crun"], indirect=True)
def test_the_store_knows_a_lock_also_where_it_was_moved_to(cli, settings):
    path = write_notebook(cli.folder / "a.ipynb", *FINE)
    assert cli("lock", "a.ipynb").returncode == 0
    path.rename(cli.folder / "moved.ipynb")
    (cli.folder / "a.lock.json").rename(cli.folder / "moved.lock.json")
    assert cli("build", "moved.ipynb", "--locked").returncode == 0
    notes = Path(settings.environ["CONTAINER_KERNEL_HOME"], "locks").iterdir()
    known = [json.loads(note.read_text())["notebook"] for note in notes]
    assert {str(cli.folder / name) for name in ("a.ipynb", "moved.ipynb")} <= {*known}


def test_a_lock_travels_in_the_notebook_and_comes_out_again(cli):
    path = write_notebook(cli.folder / "a.ipynb", *FINE)
    assert cli("lock", "a.ipynb", "--embed").returncode == 0
    assert not (cli.folder / "a.lock.json").exists()
    embedded = json.loads(path.read_text())["metadata"]["container_kernel"]["lock"]
    assert cli("run", "a.ipynb", "--locked", "-o", "b.ipynb").returncode == 0
    assert json.loads((cli.folder / "b.ipynb").read_text())["metadata"]["container_kernel"]["lock"]
    assert cli("lock", "a.ipynb", "--extract").returncode == 0
    assert json.loads((cli.folder / "a.lock.json").read_text()) == embedded
    assert json.loads(path.read_text())["metadata"] == {}


def test_a_lock_written_twice_is_the_same_file(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE)
    cli("lock", "a.ipynb")
    before = (cli.folder / "a.lock.json").read_bytes()
    assert "is as it was" in cli("lock", "a.ipynb").stdout
    assert (cli.folder / "a.lock.json").read_bytes() == before


def test_where_no_lock_can_be_written_that_is_said(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE)
    (cli.folder / "a.lock.json").mkdir()
    done = cli("lock", "a.ipynb")
    assert done.returncode == 1
    assert "error: a.lock.json cannot be written: Is a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_why_names_what_changed(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE)
    cli("build", "a.ipynb")
    write_notebook(cli.folder / "a.ipynb", FINE[0], "%%build --net none\necho other > /same")
    cli("build", "a.ipynb")
    said = cli("why", "a.ipynb", "1").stdout
    assert "changed since run" in said
    assert "+echo other > /same" in said
    done = cli("why", "a.ipynb", "nothing like it")
    assert done.returncode == 1
    assert "no step 'nothing like it'" in done.stderr


def test_a_cell_keeps_where_it_ran_and_is_run_again_when_that_changes(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE, "cat /same; echo ran >> /work/log")
    digest = json.loads(cli("run", "a.ipynb", "-o", "b.ipynb", "--json").stdout)["stages"]["main"][
        "digest"
    ]
    mark = cells(cli.folder / "b.ipynb")["cell-2"]["metadata"]["container_kernel"]
    assert (mark["image"], mark["stage"]) == (digest, "main")
    assert mark["limits"].keys() == {"memory_bytes", "pids", "cpus"}
    assert "cpu_seconds" not in mark
    assert cells(cli.folder / "b.ipynb")["cell-1"]["metadata"] == {}
    cli("run", "b.ipynb", "-o", "b.ipynb", "--stale")
    assert (cli.folder / "log").read_text() == "ran\n"
    text = (cli.folder / "b.ipynb").read_text()
    (cli.folder / "b.ipynb").write_text(text.replace("echo same >", "echo other >"))
    cli("run", "b.ipynb", "-o", "b.ipynb", "--stale")
    assert (cli.folder / "log").read_text() == "ran\nran\n"
    assert cells(cli.folder / "b.ipynb")["cell-2"]["outputs"][0]["text"] == ["other\n"]


def test_meters_are_kept_where_they_are_asked_for(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE, "true")
    cli("run", "a.ipynb", "-o", "b.ipynb", "--meters")
    mark = cells(cli.folder / "b.ipynb")["cell-2"]["metadata"]["container_kernel"]
    if mark["limits"]["memory_bytes"] is None:
        pytest.skip("no cgroup counts here")
    assert 0 <= mark["cpu_seconds"] < 60
    assert mark["peak_memory_bytes"] > 1000


def test_the_records_are_no_strangers_to_the_store(cli, settings):
    write_notebook(cli.folder / "a.ipynb", *FINE)
    env = {**settings.environ, "CONTAINER_KERNEL_HOME": str(cli.folder / "home")}
    assert command("verify", "a.ipynb", cwd=cli.folder, env=env).returncode == 0
    done = command("store", "check", "--full", "--json", cwd=cli.folder, env=env)
    assert done.returncode == 0, done.stderr
    assert "unknown-file" not in done.stdout


def test_a_notebook_run_as_a_whole_passes_over_what_moves_sessions(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE, "%undo", "%checkout nowhere", "test -e /same")
    done = cli("run", "a.ipynb", "--json")
    assert done.stderr.count("passed over, as it is for live sessions") == 2
    assert "No such file" not in done.stderr


@pytest.mark.parametrize("ids", [("c", "c", "c", "c"), None])
def test_cells_of_one_id_or_of_none_are_cells_of_their_own(cli, ids):
    more = "%%build --net none\necho more > /more"
    path = write_notebook(cli.folder / "a.ipynb", *FINE, more, "cat /same /more")
    document = json.loads(path.read_text())
    for number, cell in enumerate(document["cells"]):
        del cell["id"]
        if ids:
            cell["id"] = ids[number]
    document["nbformat_minor"] = 5 if ids else 4
    path.write_text(json.dumps(document))
    lock = json.loads(cli("lock", "a.ipynb", "--json").stdout)["lock"]["stages"]["main"]
    assert [step["step"].split()[2] for step in lock["steps"]] == ["same", "more"]
    done = cli("run", "a.ipynb", "--locked", "-o", "b.ipynb", "--json")
    assert json.loads(done.stdout)["stages"]["main"]["digest"] == lock["image"], done.stderr
    (said,) = json.loads((cli.folder / "b.ipynb").read_text())["cells"][3]["outputs"]
    assert "".join(said["text"]) == "same\nmore\n"
    assert json.loads(cli("verify", "a.ipynb", "--json").stdout)["reproducible"]


def test_image_diff_names_what_differs(cli):
    base, made = (
        json.loads(cli("build", path.name, "--json").stdout)["stages"]["main"]["digest"]
        for path in (
            write_notebook(cli.folder / "a.ipynb", FINE[0]),
            write_notebook(cli.folder / "b.ipynb", *FINE),
        )
    )
    done = cli("image", "diff", base, made)
    assert done.returncode == 0, done.stderr
    assert "+ /same  5 B, 0644 0:0" in done.stdout
    found = json.loads(cli("image", "diff", base, made, "--json").stdout)
    assert [(one["path"], one["change"]) for one in found["files"]] == [("/same", "added")]
    assert "+same" in cli("image", "diff", base, made, "/same").stdout
    assert cli("image", "diff", base, "nowhere").returncode == 1


def test_why_of_what_was_never_built_says_that_nothing_is_known(cli):
    write_notebook(cli.folder / "a.ipynb", *FINE)
    done = cli("why", "a.ipynb")
    said = "nothing is known of the steps of a.ipynb: build it first, if it has any\n"
    assert (done.returncode, done.stdout) == (0, said)
    assert json.loads(cli("why", "a.ipynb", "--json").stdout) == {"steps": []}
