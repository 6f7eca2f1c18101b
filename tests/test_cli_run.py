"""``container-kernel run``: a notebook executed from top to bottom, with nothing left behind."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import STEPS, write_notebook
from tests.kernel.conftest import until
from tests.kernel.processes import all_processes, descendants, name


@pytest.mark.privileged
def test_run_executes_every_cell_and_writes_the_notebook(cli):
    write_notebook(cli.folder / "a.ipynb", *STEPS, "cat /hello; echo $A", "%layers")
    done = cli("run", "a.ipynb", "-o", "out.ipynb", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (result["status"], result["cells"]) == ("ok", 5)
    assert len(result["stages"]["main"]["layers"]) == 2
    cells = json.loads((cli.folder / "out.ipynb").read_text())["cells"]
    assert "".join(cells[3]["outputs"][0]["text"]) == "hello\n1\n"
    assert result["stages"]["main"]["digest"] in str(cells[4]["outputs"])


@pytest.mark.privileged
def test_run_shows_the_failing_cell_and_keeps_what_was_executed(cli):
    write_notebook(cli.folder / "a.ipynb", "%base busybox", "%%build\necho why; exit 5", "echo no")
    done = cli("run", "a.ipynb", "-o", "out.ipynb", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert (result["status"], result["cells"]) == ("error", 1)
    assert result["error"]["cell"] == "cell-1"
    assert "echo why; exit 5" in done.stderr
    cells = json.loads((cli.folder / "out.ipynb").read_text())["cells"]
    assert cells[1]["outputs"][-1]["ename"] == "StepFailed"
    assert cells[2]["outputs"] == []


@pytest.mark.privileged
def test_a_notebook_run_again_is_the_same_file(cli):
    write_notebook(cli.folder / "a.ipynb", *STEPS, "for n in 1 2 3; do echo $n; done", "%layers")
    cli("build", "a.ipynb")
    assert cli("run", "a.ipynb", "-o", "one.ipynb").returncode == 0
    assert cli("run", "a.ipynb", "-o", "two.ipynb").returncode == 0
    assert (cli.folder / "one.ipynb").read_bytes() == (cli.folder / "two.ipynb").read_bytes()


@pytest.mark.privileged
def test_when_run_is_over_its_kernel_and_its_files_are_gone(cli, settings):
    place = cli.folder / "temporary"
    place.mkdir()
    write_notebook(cli.folder / "a.ipynb", *STEPS, "cat /hello")
    environ = {**settings.environ, "TMPDIR": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "container_kernel", "run", "a.ipynb"],
        cwd=cli.folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # no pipe: whoever holds it would be waited for
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0
    left = [name(pid) for pid in all_processes() if f"TMPDIR={place}" in environ_of(pid)]
    assert set(left) <= {"ck-janitor"}  # which is about to end
    assert list(place.iterdir()) == []


def environ_of(pid):
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    return []


WATCHED = """
import sys
from container_kernel.kernel.spare import Spare
from container_kernel.cli import main
be = Spare.be
def watched(self, *words):
    process = be(self, *words)
    print("the spare is it:", process is not None, file=sys.stderr)
    return process
Spare.be = watched
code = main(["run", "a.ipynb"])
print("grammar:", sys.modules.get("rfc3987_syntax"), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def watched(cli, settings):
    """What is said where `run` is watched."""
    write_notebook(cli.folder / "a.ipynb", *STEPS)
    argv = [sys.executable, "-c", WATCHED]
    env = dict(settings.environ)
    done = subprocess.run(
        argv, cwd=cli.folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.privileged
def test_the_kernel_of_run_loads_while_run_does(watched):
    assert "the spare is it: True" in watched


@pytest.mark.privileged
@pytest.mark.skipif(
    importlib.util.find_spec("rfc3987_syntax") is None,
    reason="rfc3987-syntax, which takes a second to import, is not installed",
)
def test_run_does_not_wait_for_a_grammar_of_urls(watched):
    assert "grammar: None" in watched


@pytest.mark.privileged
def test_run_makes_the_image_of_what_the_notebook_says_now(cli):
    """Its kernel is told which cell is which: one that was edited replaces itself."""
    mine = f"%%build\n: {cli.folder}\necho {{}} >> /a"
    for word in ("old", "new"):
        cells = ["%base busybox", mine.format(word), mine.format("tail"), mine.format("tail")]
        write_notebook(cli.folder / "a.ipynb", *cells, "cat /a")
        done = cli("run", "a.ipynb", "-o", "out.ipynb", "--json")
        assert done.returncode == 0, done.stderr
    built = json.loads(cli("build", "a.ipynb", "--json").stdout)["stages"]["main"]
    assert json.loads(done.stdout)["stages"]["main"]["digest"] == built["digest"]
    cells = json.loads((cli.folder / "out.ipynb").read_text())["cells"]
    assert "".join(cells[-1]["outputs"][0]["text"]) == "new\ntail\ntail\n"


@pytest.fixture
def running(cli, settings):
    """`run`, in the middle of a cell that takes long; another would come after it."""
    write_notebook(cli.folder / "a.ipynb", *STEPS, "echo on; touch on; sleep 99", "echo no")
    argv = [sys.executable, "-m", "container_kernel", "run", "a.ipynb", "-o", "out.ipynb", "--json"]
    with subprocess.Popen(
        argv,
        cwd=cli.folder,
        env=dict(settings.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until((cli.folder / "on").exists)
        yield process
        process.kill()


def told(process, folder):
    """What it says in the end, and what is in the notebook of the two last cells."""
    stdout, stderr = process.communicate(timeout=30)
    assert "Traceback" not in stderr, stderr
    cells = json.loads((folder / "out.ipynb").read_text())["cells"]
    return json.loads(stdout), [cell["outputs"] for cell in cells[-2:]]


@pytest.mark.privileged
def test_an_interrupt_is_the_cells_and_the_rest_is_not_executed(running, cli):
    running.send_signal(signal.SIGINT)
    result, (outputs, rest) = told(running, cli.folder)
    assert running.returncode == 1
    assert result["error"]["ename"] == "KeyboardInterrupt"
    assert result["stages"]["main"]["digest"]
    assert outputs[0]["text"] == ["on\n"]
    assert (outputs[-1]["ename"], rest) == ("KeyboardInterrupt", [])


@pytest.mark.privileged
def test_who_has_it_ended_gets_what_there_was(running, cli):
    running.send_signal(signal.SIGTERM)
    result, (outputs, rest) = told(running, cli.folder)
    assert running.returncode == 1
    assert result["error"]["evalue"] == "interrupted: its kernel was ended"
    assert (outputs[0]["text"], rest) == (["on\n"], [])


@pytest.mark.privileged
def test_who_asks_twice_need_not_wait(running, cli):
    running.send_signal(signal.SIGINT)
    time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    result, (_, rest) = told(running, cli.folder)
    assert (running.returncode, rest) == (1, [])
    assert result["error"]["ename"] == "KeyboardInterrupt"


@pytest.mark.privileged
@pytest.mark.parametrize("after_s", [0.4, 0.5, 0.6])
def test_who_has_it_ended_while_its_kernel_starts_is_not_told_to_mend_the_host(
    cli, settings, after_s
):
    write_notebook(cli.folder / "a.ipynb", *STEPS, "echo on; sleep 99")
    argv = [sys.executable, "-m", "container_kernel", "run", "a.ipynb"]
    env = dict(settings.environ)
    with subprocess.Popen(argv, cwd=cli.folder, env=env, stderr=subprocess.PIPE, text=True) as run:
        time.sleep(after_s)
        run.send_signal(signal.SIGTERM)
        _, stderr = run.communicate(timeout=30)
    assert run.returncode in (1, -signal.SIGTERM)
    assert "did not start" not in stderr


@pytest.mark.privileged
def test_a_kernel_that_is_killed_is_missed_at_once(running, cli):
    for pid in descendants(running.pid)[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    result, _ = told(running, cli.folder)
    assert (running.returncode, result["error"]["ename"]) == (1, "DeadKernel")


def test_a_kernel_that_does_not_start_is_exit_code_3(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "1")
    code = "import sys; sys.executable = '/bin/false'; from container_kernel.cli import main"
    argv = [sys.executable, "-c", f"{code}; sys.exit(main(['run', 'a.ipynb']))"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "the kernel did not start" in done.stderr
    assert "Traceback" not in done.stderr
