"""Our cells in an ordinary ipykernel notebook, and from Python; with real containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

import container_kernel
from container_kernel import CellFailed, Environment
from tests.kernel.conftest import ROOT, Kernel, until

pytestmark = pytest.mark.privileged


class IpykernelManager(KernelManager):
    """An ordinary notebook's kernel."""

    @property
    def kernel_spec(self):
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, language="python", interrupt_mode="signal")


class Ordinary(Kernel):
    """An ordinary notebook in ``folder``."""

    def __init__(self, folder):
        self.manager = IpykernelManager()
        self.manager.start_kernel(cwd=str(folder), env=dict(os.environ))
        self.client = self.new_client()

    def run(self, code, **options):
        """A client that waits for no other cell, so ipykernel has none to abort after an error.

        It would abort whatever reaches it before it has noticed that nothing waits.
        """
        return super().run(code, stop_on_error=False, **options)

    def cell(self, cell_id, code):
        """Run a cell as a notebook does, with its id; reply's content and what was shown."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = self.client.session.msg("execute_request", content)
        message["metadata"] = {"cellId": cell_id}
        self.client.shell_channel.send(message)
        outputs = self.outputs_until_idle(message["header"]["msg_id"])
        return self.reply_to(message["header"]["msg_id"])["content"], outputs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where kernels of these tests keep things."""
    runtime = tempfile.mkdtemp(prefix="ck-run-")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINER_KERNEL_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        patch.setenv("PYTHONPATH", path)
        patch.delenv("JPY_SESSION_NAME", raising=False)
        yield
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(scope="module")
def notebook(place, tmp_path_factory):
    kernel = Ordinary(tmp_path_factory.mktemp("notebook"))
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(notebook):
    """The notebook with our extension, loaded anew."""
    reply, _ = notebook.run("%load_ext container_kernel")
    assert reply["status"] == "ok", reply
    yield notebook
    notebook.run("%unload_ext container_kernel")


@pytest.fixture
def based(kernel):
    """With a base, on which ``%pip`` and its like are about the image."""
    reply, _ = kernel.run("%base busybox")
    assert reply["status"] == "ok", reply
    return kernel


def shown(outputs):
    """The last text of every display."""
    texts = {}
    for number, message in enumerate(outputs):
        content = message["content"]
        if "data" in content:
            display_id = content.get("transient", {}).get("display_id", number)
            texts[display_id] = content["data"].get("text/plain", "")
    return "\n".join(texts.values())


def test_build_cells_show_cards_and_run_cells_run_inside(kernel):
    reply, outputs = kernel.run("%base busybox")
    assert reply["status"] == "ok"
    assert "✓ [base] %base busybox" in shown(outputs)
    _, outputs = kernel.run("%%build --name 'my layer'\necho frozen > /note")
    assert "✓" in shown(outputs)
    assert "my layer" in shown(outputs)
    assert [m["msg_type"] for m in outputs].count("display_data") == 1  # the rest are updates
    assert kernel.text("%%container\ncat /note; pwd").split() == ["frozen", "/work"]
    assert kernel.text("import os; print(os.path.exists('/note'))") == "False\n"


def test_run_cells_keep_their_variables(based):
    based.run("%%container\nx=5")
    assert based.text("%%container\necho $x").strip() == "5"
    assert based.text("%%run cat\nthe body").strip() == "the body"
    assert "%base busybox" in based.text("%layers")


def test_a_failure_fails_the_cell_under_its_own_name(based):
    reply, outputs = based.run("%%build\nexit 7")
    assert (reply["status"], reply["ename"]) == ("error", "StepFailed")
    error = next(m["content"] for m in outputs if m["msg_type"] == "error")
    assert not any("extension.py" in line for line in error["traceback"])
    assert based.run("%base nowhere --as x")[0]["ename"] == "BaseNotFound"


def test_a_cell_that_runs_again_replaces_itself(kernel):
    kernel.cell("one", "%base busybox")
    kernel.cell("two", "%%build\necho 1 > /note")
    kernel.cell("two", "%%build\necho 2 >> /note")
    assert kernel.text("%%container\ncat /note").strip() == "2"


def test_several_lines_are_one_cell(kernel):
    kernel.cell("one", "%base busybox\n%label a=1\n%container env A=2")
    assert kernel.text("%%container\necho $A").strip() == "2"
    reply, _ = kernel.cell("one", "%base busybox\n%container env A=3")
    assert reply["status"] == "ok"
    assert kernel.text("%%container\necho $A").strip().endswith("3")  # in a new session


def test_names_of_ipython_are_its_own_until_there_is_a_base(kernel):
    kernel.run("%env MINE=1")
    assert kernel.text("import os; print(os.environ['MINE'])") == "1\n"
    assert "pip" in kernel.text("%pip --version")
    assert kernel.text("%%sh\necho $PPID").strip() != "0"
    _, outputs = kernel.run("%base busybox")
    assert "IPython's own are %host pip" in shown(outputs)
    kernel.run("%env THEIRS=1")
    assert kernel.text("import os; print('THEIRS' in os.environ)") == "False\n"
    assert kernel.text("%%container\necho $THEIRS").strip().endswith("1")
    assert kernel.text("%env MINE").strip() == "'1'"  # a question, which ours has no answer to
    kernel.run("%host env THEIRS=2")
    assert kernel.text("import os; print(os.environ['THEIRS'])") == "2\n"
    assert kernel.text("%%host sh\necho $THEIRS").strip() == "2"
    assert "pip" in kernel.text("%host pip --version")
    reply, _ = kernel.run("%pip list")
    assert "%pip only installs" in reply["evalue"]
    _, outputs = kernel.run("%base busybox --as other")
    assert "From here on" not in shown(outputs)


def test_cells_that_are_ipythons_in_part_run_line_by_line(kernel):
    kernel.run("%env FIRST=1\n%help use")
    assert kernel.text("import os; print(os.environ['FIRST'])") == "1\n"
    assert "✓" not in kernel.text("%env FIRST=2\n%pip --version")
    kernel.run("%base busybox\n%env FIRST=3")  # stands on a base: the image's
    assert kernel.text("print(os.environ['FIRST'])") == "2\n"
    assert kernel.text("%%container\necho $FIRST").strip() == "3"
    assert "%base busybox" in kernel.text("%precision 3\n%layers")


def test_build_magics_among_code_are_refused(based):
    for line in ("%label a=b", "%container label a=b", "%env A=1"):
        reply, _ = based.run(f"y = 1\n{line}")
        assert reply["ename"] == "BadArguments", line
        assert "among code" in reply["evalue"]
    assert "%base busybox" in based.text("y = 1\n%layers")  # it builds nothing


def test_help_and_other_magics_are_as_ever(kernel):
    reply, _ = kernel.run("%apt?")
    assert "Install Debian packages" in str(reply["payload"])
    assert kernel.text("%%capture\nprint('hidden')") == ""
    assert kernel.text("print('%base busybox')") == "%base busybox\n"
    assert kernel.run("%%run")[0]["status"] == "error"


def test_magics_of_environments_and_failures_work_beside_ipython(kernel):
    kernel.cell("base", "%base busybox")
    kernel.cell("one", "%%build --net none\necho 1 > /one")
    kernel.cell("two", "%%build --net none\necho 2 > /two")
    assert "back to @2" in kernel.text("%undo")
    assert kernel.run("%%container\ntest -e /two")[0]["ename"] == "ExitStatus"
    assert "good is @2" in kernel.text("%branch good")
    assert "*  @2" in kernel.text("%checkout")
    assert "on @3" in kernel.text("%checkout @3")
    assert "+ /two" in kernel.text("%diff @2 @3")
    kernel.run("%%container\nmkdir -p ~/own; echo hi > ~/own/file")
    assert "own/file <<'EOF'\nhi\nEOF" in kernel.text("%freeze")
    assert "2 / 2048" in kernel.text("%top --once")
    assert "every byte is the same" in kernel.text("%verify")
    assert kernel.run("%%build --net none\ntouch /half; false")[0]["ename"] == "StepFailed"
    assert kernel.text("%shell --failed ls /half") == "/half\n"
    assert kernel.run("%retry")[0]["ename"] == "StepFailed"
    assert "discarded" in kernel.text("%discard")
    assert kernel.run("%shell --failed true")[0]["ename"] == "CellError"


def test_records_of_a_notebook_need_to_know_which_it_is(based):
    for magic in ("%lock", "%why", "%stale"):
        reply, _ = based.run(magic)
        assert "told of no notebook" in reply["evalue"], magic


def test_unloading_gives_everything_back(based):
    based.run("%%container\nsleep 1000 &")
    family = subprocess.run(
        ["ps", "-eo", "pid,ppid", "--no-headers"], capture_output=True, text=True, check=True
    ).stdout.split()
    children = [int(pid) for pid, ppid in zip(family[::2], family[1::2], strict=True)
                if int(ppid) == based.pid]  # fmt: skip
    assert children
    based.run("%unload_ext container_kernel")
    until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in children), 10)
    assert "pip" in based.text("%pip --version")
    assert based.run("%apt git")[0]["status"] == "error"
    based.run("%load_ext container_kernel")
    assert based.run("%base busybox")[0]["status"] == "ok"


def test_an_interrupt_stops_the_cell_inside(based):
    msg_id = based.client.execute("%%container\necho on; sleep 60", stop_on_error=False)
    until(lambda: based.client.get_iopub_msg(timeout=20)["msg_type"] == "stream")
    based.manager.interrupt_kernel()
    assert based.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    assert based.text("%%container\necho still").strip() == "still"


@pytest.mark.slow
def test_a_question_from_inside_is_asked_in_the_notebook(place, tmp_path, monkeypatch):
    monkeypatch.delenv("CONTAINER_KERNEL_HOME")  # where other tests have built the same steps
    kernel = Ordinary(tmp_path)
    try:
        kernel.run("%load_ext container_kernel")
        for code in ("%base debian:bookworm", "%apt python3"):
            reply, outputs = kernel.run(code, timeout=900)
            assert reply["status"] == "ok", outputs
        assert kernel.text("%%container\n6 * 7") == "42"
        msg_id = kernel.client.execute("%%container\nprint(input('colour? ') * 2)")
        question = kernel.client.get_stdin_msg(timeout=20)
        assert question["content"]["prompt"] == "colour? "
        kernel.client.input("blue")
        outputs = kernel.outputs_until_idle(msg_id)
        assert "blueblue" in "".join(m["content"].get("text", "") for m in outputs)
        reply, _ = kernel.run("%%container\ninput()", allow_stdin=False)
        assert reply["ename"] == "StdinNotImplementedError"
    finally:
        kernel.close()


# From Python


def test_an_environment_builds_and_runs(place, tmp_path):
    heard = []
    with Environment(
        "busybox", folder=tmp_path, on_text=lambda *said: heard.append(said)
    ) as environment:
        environment.build("echo frozen > /note", name="note")
        environment.env(A="1 2")
        assert environment.cell("cat /note; echo $A; pwd").stdout == "frozen\n1 2\n/work\n"
        assert ("stdout", "frozen\n") in heard or "frozen" in str(heard)
        first = environment.digest
        assert environment.run(["cat"], input="body", timeout="20s").stdout.strip() == "body"
        environment.base("busybox", stage="other")
        assert environment.digest != first
        environment.use("main")
        assert environment.digest == first
        with pytest.raises(CellFailed, match="exit code 3") as caught:
            environment.sh("exit 3")
        assert caught.value.ename == type(caught.value).__name__ == "CommandFailed"


def test_an_environment_on_nothing_says_so(place, tmp_path):
    with pytest.raises(CellFailed, match="no base called 'nowhere'") as caught:
        Environment("nowhere", folder=tmp_path)
    assert "debian:bookworm" in caught.value.hint


def test_the_package_imports_nothing_until_it_is_asked():
    code = "import sys, container_kernel; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "zmq" not in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        container_kernel.nothing  # noqa: B018
