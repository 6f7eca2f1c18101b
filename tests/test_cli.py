"""The command line as its users call it: a process, its exit code, its two outputs."""

import json
import os
import subprocess
import sys

import pytest
from nbformat import v4

from container_kernel.cli.notebook import document, value, with_parameters
from container_kernel.errors import UsageError
from tests.commands import STEPS, command, write_notebook

WRONG_USE = [
    ([], "required: COMMAND"),
    (["bild"], "invalid choice: 'bild'"),
    (["run"], "required: NOTEBOOK"),
    (["run", "nowhere.ipynb"], "nowhere.ipynb does not exist"),
    (["run", "."], ". is a folder"),
    (["build", "nowhere.ipynb"], "nowhere.ipynb does not exist"),
    (["image"], "required: COMMAND"),
    (["image", "save", "x"], "required: -o"),
    (["image", "save", "x", "-o", "y", "--format", "zip"], "invalid choice: 'zip'"),
    (
        ["exec", "--memory", "lots", "--", "true"],
        "a size from 6m on, such as 512m or 2g, found 'lots'",
    ),
    (["exec", "--net", "a b", "--", "true"], "none, host, pasta, or hosts and names of sets"),
    (["store"], "required: COMMAND"),
    (["store", "collect", "--older-than", "old"], "a time such as"),
    (["install", "--user", "--sys-prefix"], "not allowed with argument"),
    (["install", "--name", "a b"], "found 'a b'"),
    (["doctor", "now"], "unrecognized arguments: now"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_USE, ids=lambda word: str(word))
def test_wrong_use_is_exit_code_2_and_one_error(words, said):
    done = command(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_with_json_an_error_is_an_object():
    done = command("run", "nowhere.ipynb", "--json")
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "UsageError"
    assert error["message"] == "notebook nowhere.ipynb does not exist"
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nbformat": 3}', "\0"])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    (tmp_path / "x.ipynb").write_text(text)
    done = command("run", "x.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not a notebook of format 4" in done.stderr


def cell(**fields):
    return {"cell_type": "code", "metadata": {}, "source": "", **fields}


ALMOST = [
    {"cells": [1]},
    {"cells": {}},
    {"cells": [{"source": "", "metadata": {}}]},
    {"cells": [cell(cell_type=1)]},
    {"cells": [cell(source=1)]},
    {"cells": [cell(source=["a", 1])]},
    {"cells": [cell(metadata=[])]},
    {"cells": [cell(id=["a"])]},
    {"cells": [], "metadata": None},
    {"cells": [], "metadata": []},
    {"cells": [], "metadata": {"kernelspec": "python3"}},
    {"cells": [], "metadata": {"kernelspec": {"name": 3}}},
]


@pytest.mark.parametrize("found", ALMOST, ids=json.dumps)
@pytest.mark.parametrize("verb", ["run", "build"])
def test_what_is_almost_a_notebook_is_refused(tmp_path, verb, found):
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, **found}
    (tmp_path / "x.ipynb").write_text(json.dumps(whole))
    done = command(verb, "x.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/x.ipynb is not a notebook of format 4\n")


def test_what_nests_deeper_than_can_be_read_is_refused(tmp_path):
    (tmp_path / "x.ipynb").write_text("[" * 200_000)
    with pytest.raises(UsageError, match="is not a notebook of format 4"):
        document(tmp_path / "x.ipynb")


@pytest.mark.parametrize("outputs", [1, [1], [{"output_type": "stream", "text": [1]}]])
def test_what_nbformat_cannot_read_is_refused(tmp_path, outputs):
    found = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell(outputs=outputs)]}
    (tmp_path / "x.ipynb").write_text(json.dumps(found))
    done = command("run", "x.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert "x.ipynb is not a notebook of format 4" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.privileged
@pytest.mark.parametrize("minor", range(6))
def test_notebooks_of_each_minor_format_are_taken(cli, minor):
    cells = [
        {
            "cell_type": "markdown",
            "metadata": {},
            "source": ["# a\n", "b"],
            "attachments": {"a.png": {"image/png": "eA=="}},
        },
        {"cell_type": "raw", "metadata": {"format": "text/plain"}, "source": "x"},
        {"cell_type": "code", "source": "%base busybox"},
        {"cell_type": "code", "metadata": {}},
        cell(source=["echo ", "one"], outputs=[], execution_count=None),
    ]
    found = {"nbformat": 4, "nbformat_minor": minor, "metadata": {}, "cells": cells}
    (cli.folder / "x.ipynb").write_text(json.dumps(found))
    assert cli("build", "x.ipynb").returncode == 0
    done = cli("run", "x.ipynb", "-o", "y.ipynb")
    assert done.returncode == 0, done.stderr
    assert "".join(document(cli.folder / "y.ipynb")["cells"][-1]["outputs"][0]["text"]) == "one\n"


@pytest.mark.parametrize("name", ["a b", "1x", "", "class", "None", "a.b", "x=1;y"])
def test_a_parameter_that_is_no_name_of_a_variable_is_wrong_use(tmp_path, name):
    write_notebook(tmp_path / "x.ipynb", "1")
    done = command("run", "x.ipynb", "-p", name, "5", cwd=tmp_path)
    assert done.returncode == 2
    assert f"-p takes the name of a Python variable, found {name!r}" in done.stderr


def test_an_output_in_a_missing_folder_is_refused_before_anything_runs(tmp_path):
    write_notebook(tmp_path / "x.ipynb", "1")
    done = command("run", "x.ipynb", "-o", "no/y.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert f"the folder {tmp_path}/no does not exist" in done.stderr


def test_an_output_that_cannot_be_written_is_said_before_anything_runs(cli):
    write_notebook(cli.folder / "x.ipynb", "%base busybox", "touch ran")
    (cli.folder / "taken").mkdir()
    done = cli("run", "x.ipynb", "-o", "taken")
    assert done.returncode == 2
    assert f"{cli.folder}/taken cannot be written: it is a folder" in done.stderr
    assert not (cli.folder / "ran").exists()


def test_an_output_that_one_may_not_even_look_for_is_refused(tmp_path):
    write_notebook(tmp_path / "x.ipynb", "1")
    (tmp_path / "loop").symlink_to("loop")
    done = command("run", "x.ipynb", "-o", "n" * 300, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{'n' * 300} cannot be written: File name too long" in done.stderr
    done = command("run", "x.ipynb", "-o", "loop", cwd=tmp_path)
    assert done.returncode == 2
    assert "loop cannot be written: Too many levels of symbolic links" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_an_output_in_a_folder_of_others_is_refused(tmp_path):
    write_notebook(tmp_path / "x.ipynb", "1")
    (tmp_path / "theirs").mkdir(mode=0)
    done = command("run", "x.ipynb", "-o", "theirs/y.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert "theirs/y.ipynb cannot be written: Permission denied" in done.stderr


@pytest.mark.privileged
@pytest.mark.parametrize("files", range(6, 12))
def test_row_38_a_command_with_few_files_says_so(cli, files):
    argv = [sys.executable, "-m", "container_kernel", "store", "check", "--full"]
    limited = ["prlimit", f"--nofile={files}", "--", *argv]
    done = subprocess.run(limited, cwd=cli.folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3)
    if done.returncode:
        assert "Too many open files\nhint: close some kernels" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.privileged
def test_row_45_more_files_than_this_host_allows_are_clamped_and_it_is_said(cli):
    script = ["--image", "busybox", "--files", "8000", "--", "sh", "-c", "ulimit -Hn"]
    argv = [sys.executable, "-m", "container_kernel", "exec", *script]
    few = ["prlimit", "--nofile=1024:4096", "--", *argv]
    done = subprocess.run(few, cwd=cli.folder, capture_output=True, text=True, check=False)
    assert done.stdout == "4096\n", done.stderr
    assert "--files is held by RLIMIT_NOFILE" in done.stderr
    assert "which this host allows us to set to 4096 at most" in done.stderr


def test_parameters_need_a_tagged_cell(tmp_path):
    pytest.importorskip("papermill", reason="papermill is not installed")
    write_notebook(tmp_path / "x.ipynb", "1")
    done = command("run", "x.ipynb", "-p", "a", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "tagged `parameters`" in done.stderr


def test_a_missing_file_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        document(tmp_path / "x.ipynb")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1", 1),
        ("0.5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("[1, 'a']", [1, "a"]),
        ("hello world", "hello world"),
        ("1 + 1", "1 + 1"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_the_value_of_a_parameter(text, meant):
    assert value(text) == meant


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["image", "--help"], ["image", "save", "--help"]],
    ids=" ".join,
)
def test_help_is_exit_code_0(words):
    done = command(*words)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: container-kernel")


def test_install_writes_a_kernelspec_that_runs_this_python(tmp_path):
    done = command("install", "--prefix", tmp_path, "--name", "mine", "--json")
    assert done.returncode == 0
    spec = json.loads((tmp_path / "share/jupyter/kernels/mine/kernel.json").read_text())
    assert spec["argv"][:4] == [sys.executable, "-P", "-m", "container_kernel.kernel"]
    assert spec["interrupt_mode"] == "message"
    assert json.loads(done.stdout)["path"] == str(tmp_path / "share/jupyter/kernels/mine")
    assert "kernel_provisioner" not in spec["metadata"]  # which a Jupyter elsewhere would not know


def test_install_where_one_may_not_write_says_so(tmp_path):
    (tmp_path / "share").write_text("in the way")
    done = command("install", "--prefix", tmp_path)
    assert done.returncode == 3
    assert "cannot install the kernelspec" in done.stderr


@pytest.mark.privileged
def test_doctor_finds_what_containers_need():
    done = command("doctor", "--json")
    assert done.returncode == 0
    found = {one["name"]: one["is_ok"] for one in json.loads(done.stdout)["findings"]}
    assert found["OCI runtime"]
    assert found["overlayfs"]


@pytest.mark.privileged
def test_doctor_without_a_runtime_is_exit_code_3_with_a_remedy():
    done = command("doctor", env={**os.environ, "CONTAINER_KERNEL_RUNTIME": "/nowhere/crun"})
    assert done.returncode == 3
    assert "LACK" in done.stdout


@pytest.mark.privileged
def test_exec_passes_output_input_and_exit_code(cli):
    done = cli("exec", "--image", "busybox", "--", "sh", "-c", "cat; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "")
    assert "err\n" in done.stderr


@pytest.mark.privileged
def test_exec_with_json_has_the_outputs_in_the_object(cli):
    done = cli("exec", "--image", "busybox", "--json", "--", "sh", "-c", "echo out; exit 7")
    assert json.loads(done.stdout) == {"exit_code": 7, "stdout": "out\n", "stderr": ""}
    assert done.returncode == 7


@pytest.mark.privileged
def test_exec_stops_at_its_timeout(cli):
    done = cli("exec", "--image", "busybox", "--timeout", "200ms", "--", "sleep", "60")
    assert done.returncode == 124
    assert "ran longer than 0.2 s" in done.stderr


@pytest.mark.privileged
def test_exec_has_no_network_unless_it_is_asked_for(cli):
    show = ("--", "ls", "/sys/class/net")
    assert cli("exec", "--image", "busybox", *show).stdout.split() == ["lo"]


@pytest.mark.privileged
def test_exec_of_an_unknown_image_says_what_exists(cli):
    done = cli("exec", "--image", "busybocks", "--", "true")
    assert done.returncode == 1
    assert "no base called 'busybocks'" in done.stderr
    assert "busybox" in done.stderr


@pytest.mark.privileged
def test_exec_takes_the_only_notebook_of_the_folder(cli):
    assert "there are no notebooks" in cli("exec", "--", "true").stderr
    write_notebook(cli.folder / "a.ipynb", *STEPS)
    assert cli("exec", "--", "cat", "/hello").stdout == "hello\n"


@pytest.mark.privileged
def test_shell_without_a_terminal_reads_its_commands(cli):
    assert cli("shell", "--image", "busybox").returncode == 0


@pytest.mark.privileged
def test_build_runs_the_build_cells_only(cli):
    write_notebook(cli.folder / "a.ipynb", *STEPS, "raise RuntimeError")
    done = cli("build", "a.ipynb", "--json")
    stage = json.loads(done.stdout)["stages"]["main"]
    assert [layer["created_by"] for layer in stage["layers"]] == ["%base busybox", "%%build hello"]
    assert (
        json.loads(cli("build", "a.ipynb", "--json").stdout)["stages"]["main"]["digest"]
        == (stage["digest"])
    )


@pytest.mark.privileged
def test_build_puts_steps_into_the_stage_in_use(cli):
    cells = ("%base busybox --as a", "%base busybox --as b", "%use a", "%%build\necho a > /a")
    write_notebook(cli.folder / "a.ipynb", *cells)
    stages = json.loads(cli("build", "a.ipynb", "--json").stdout)["stages"]
    assert {name: len(stage["layers"]) for name, stage in stages.items()} == {"a": 2, "b": 1}


@pytest.mark.privileged
def test_a_failing_build_cell_is_exit_code_1_with_its_last_lines(cli):
    write_notebook(cli.folder / "a.ipynb", "%base busybox", "%%build\necho why; exit 5")
    done = cli("build", "a.ipynb", "--json")
    assert done.returncode == 1
    assert "exit code 5" in json.loads(done.stdout)["error"]["message"]
    assert "  why" in done.stderr


@pytest.mark.privileged
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci"])
def test_an_image_travels_as_a_file(cli, form, tmp_path_factory):
    write_notebook(cli.folder / "a.ipynb", *STEPS)
    digest = json.loads(cli("build", "a.ipynb", "--json").stdout)["stages"]["main"]["digest"]
    assert cli("image", "tag", digest, "travel:1").returncode == 0
    assert cli("image", "save", "travel:1", "-o", "out", "--format", form).returncode == 0
    assert cli("image", "rm", "travel:1").returncode == 0
    loaded = json.loads(cli("image", "load", "-i", "out", "--json").stdout)["images"]
    assert loaded == [{"name": "travel:1", "digest": digest}]
    assert "travel:1" in cli("image", "list").stdout
    found = json.loads(cli("image", "inspect", "travel:1", "--json").stdout)
    assert (found["digest"], "A=1" in found["env"]) == (digest, True)
    assert cli("exec", "--image", "travel:1", "--", "cat", "/hello").stdout == "hello\n"


@pytest.mark.privileged
def test_an_unknown_image_is_exit_code_1(cli):
    for words in (["inspect", "nope"], ["rm", "nope"], ["tag", "nope", "b"]):
        done = cli("image", *words)
        assert done.returncode == 1
        assert "no image" in done.stderr


def test_parameters_come_after_the_tagged_cell():
    pytest.importorskip("papermill", reason="papermill is not installed")
    cells = [v4.new_code_cell("%base busybox"), v4.new_code_cell("n = 1"), v4.new_code_cell("n")]
    cells[1].metadata["tags"] = ["parameters"]
    pairs = [("n", "2"), ("name", "it's"), ("on", "true")]
    made = with_parameters(v4.new_notebook(cells=cells), pairs)
    assert [cell.source.splitlines()[0] for cell in made.cells] == [
        "%base busybox",
        "n = 1",
        "# Parameters",
        "n",
    ]
    values = {}
    exec(made.cells[2].source, values)
    assert (values["n"], values["name"], values["on"]) == (2, "it's", True)


@pytest.mark.privileged
def test_a_home_that_cannot_be_written_is_exit_code_4(cli, settings):
    environ = {**settings.environ, "CONTAINER_KERNEL_HOME": "/proc/nowhere"}
    done = command("image", "list", env=environ)
    assert done.returncode == 4
    assert "/proc/nowhere cannot be written" in done.stderr
    assert "CONTAINER_KERNEL_HOME" in done.stderr


@pytest.mark.privileged
def test_row_46_a_home_of_nobody_and_no_place_for_temporary_files_are_no_hindrance(cli, settings):
    lost = {"HOME": "/nowhere", "TMPDIR": "/nowhere", "XDG_RUNTIME_DIR": "/nowhere"}
    argv = ("exec", "--image", "busybox", "--", "echo", "works")
    done = command(*argv, cwd=cli.folder, env={**settings.environ, **lost})
    assert (done.returncode, done.stdout) == (0, "works\n"), done.stderr


@pytest.mark.privileged
def test_a_runtime_that_is_not_there_is_exit_code_3(settings):
    environ = {**settings.environ, "CONTAINER_KERNEL_RUNTIME": "nowhere"}
    done = command("exec", "--image", "busybox", "--", "true", env=environ)
    assert done.returncode == 3
    assert "no nowhere on this host" in done.stderr
