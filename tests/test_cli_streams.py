"""The command where standard input, output or error is closed, full or read by nobody."""

import json
import shlex
import subprocess
import sys

import pytest

from container_kernel.cli.report import Report
from tests.commands import STEPS, write_notebook

COMMAND = shlex.join([sys.executable, "-m", "container_kernel"])


@pytest.fixture
def shell(cli, settings):
    """The command with a shell's redirections after it, in a folder with a notebook."""
    write_notebook(cli.folder / "a.ipynb", *STEPS, "cat /hello", "echo two")

    def call(line):
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {COMMAND} {line}"],
            cwd=cli.folder,
            env=dict(settings.environ),
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def outputs(path):
    return [cell["outputs"] for cell in json.loads(path.read_text())["cells"]]


@pytest.mark.privileged
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["run a.ipynb -o out.ipynb", "build a.ipynb", "doctor"])
def test_a_closed_stream_is_as_one_to_nowhere(cli, shell, words, closed):
    done = shell(f"{words} {closed}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if words.startswith("run"):
        assert outputs(cli.folder / "out.ipynb")[-1][0]["text"] == ["two\n"]


@pytest.mark.privileged
@pytest.mark.parametrize("words", ["run a.ipynb", "build a.ipynb", "build --json a.ipynb"])
def test_a_result_that_cannot_be_written_is_exit_code_4_and_one_line(shell, words):
    done = shell(f"{words} > /dev/full")
    assert done.returncode == 4
    said = "error: standard output could not be written: No space left on device"
    assert done.stderr.splitlines()[-1] == said
    assert "Traceback" not in done.stderr


def test_an_error_whose_object_cannot_be_written_is_told_all_the_same(shell):
    done = shell("build --json no.ipynb > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: notebook no.ipynb does not exist\nhint: name an .ipynb file\n"
    done = shell("build --json no.ipynb | true")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.privileged
@pytest.mark.parametrize("unread", ["2>&1 | head -1", "2>&1 >/dev/null | true", "2> /dev/full"])
def test_where_nobody_reads_the_progress_all_is_executed(cli, shell, unread):
    done = shell(f"run a.ipynb -o out.ipynb {unread}")
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == (1 if "head" in unread else 0)  # whose result has no reader either
    *_, first, second = outputs(cli.folder / "out.ipynb")
    assert first[0]["text"] == ["hello\n"]
    assert second[0]["text"] == ["two\n"]


def test_progress_that_nobody_reads_is_dropped_for_good(monkeypatch, tmp_path):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        report = Report()
        report.note("one")
        report.log("two\n")
        report.progress("three")
