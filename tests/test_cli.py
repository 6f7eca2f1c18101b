"""The command line as its users call it: a process, its exit code, its two outputs."""

import json
import os
import subprocess
import sys

import pytest

from container_kernel.cli.notebook import code_cells, value
from container_kernel.errors import UsageError


def command(*words, cwd=None, env=None):
    argv = [sys.executable, "-m", "container_kernel", *map(str, words)]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def write_notebook(path, *sources):
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(sources)
    ]
    document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    path.write_text(json.dumps(document))
    return path


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
    (["exec", "--memory", "lots", "--", "true"], "a size such as 512m or 2g, found 'lots'"),
    (["exec", "--net", "bridge", "--", "true"], "invalid choice: 'bridge'"),
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


def test_an_output_in_a_missing_folder_is_refused_before_anything_runs(tmp_path):
    write_notebook(tmp_path / "x.ipynb", "1")
    done = command("run", "x.ipynb", "-o", "no/y.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert "the folder of no/y.ipynb does not exist" in done.stderr


def test_parameters_need_a_tagged_cell(tmp_path):
    pytest.importorskip("papermill", reason="papermill is not installed")
    write_notebook(tmp_path / "x.ipynb", "1")
    done = command("run", "x.ipynb", "-p", "a", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "tagged `parameters`" in done.stderr


def test_code_cells_have_ids_and_text(tmp_path):
    path = write_notebook(tmp_path / "x.ipynb", "%apt curl", ["a\n", "b"])
    cells = code_cells(path)
    assert [(cell.cell_id, cell.source) for cell in cells] == [
        ("cell-0", "%apt curl"),
        ("cell-1", "a\nb"),
    ]


def test_a_missing_file_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        code_cells(tmp_path / "x.ipynb")


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
    assert spec["argv"][:3] == [sys.executable, "-m", "container_kernel.kernel"]
    assert spec["interrupt_mode"] == "message"
    assert json.loads(done.stdout)["path"] == str(tmp_path / "share/jupyter/kernels/mine")


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
