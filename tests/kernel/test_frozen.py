"""Frozen images as kernels: through plain kernelspecs and through the provisioner, for real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from container_kernel.errors import UsageError
from container_kernel.kernel import frozen
from container_kernel.kernel.frozen import Frozen, Place
from container_kernel.kernel.start import Start, read
from tests.kernel.conftest import ROOT, Kernel, until

DIGEST = "sha256:" + "ab" * 32
GROUP = "jupyter_client.kernel_provisioners"
needs_entry_point = pytest.mark.skipif(
    not entry_points(group=GROUP, name="container-kernel"),
    reason="the package is not installed, so Jupyter does not know its provisioner",
)


@pytest.fixture
def place(tmp_path, home, monkeypatch):
    """Jupyter's folder of this test; the store is the module's."""
    runtime = tempfile.mkdtemp(prefix="ck-run-")
    for name, value in {
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "JUPYTER_PATH": "",
        "CONTAINER_KERNEL_HOME": str(home),
        "XDG_RUNTIME_DIR": runtime,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }.items():
        monkeypatch.setenv(name, value)
    yield tmp_path / "jupyter" / "kernels"
    shutil.rmtree(runtime, ignore_errors=True)


class Named(Kernel):
    """The kernel that Jupyter has under a name."""

    def __init__(self, name, folder, **env):
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, **env})
        self.client = self.new_client()

    def close(self):
        if self.manager.has_kernel:
            super().close()

    @property
    def language(self):
        self.client.kernel_info()
        return self.client.get_shell_msg(timeout=10)["content"]["language_info"]["name"]


@pytest.fixture
def named(tmp_path, place):
    """Start a kernel by its name."""
    kernels = []

    def start(name, **env):
        kernels.append(Named(name, tmp_path, **env))
        return kernels[-1]

    yield start
    for kernel in kernels:
        kernel.close()


def command(*words, cwd=None):
    argv = [sys.executable, "-m", "container_kernel", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


def provisioned(place, name, image, **spec):
    """A kernelspec that anybody could have written, for our provisioner."""
    provisioner = {"provisioner_name": "container-kernel", "config": {"image": image}}
    (place / name).mkdir(parents=True)
    (place / name / "kernel.json").write_text(
        json.dumps(
            {
                "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": name,
                "language": "python",
                "metadata": {"kernel_provisioner": provisioner},
                **spec,
            }
        )
    )


# The command line and the kernelspec


def test_the_command_line_of_a_kernel_is_read():
    given = read(["-f", "c.json", "--image=a:1", "--language", "R", "--spec", "{}"])
    assert given == Start(file="c.json", image="a:1", language="R", spec="{}")
    assert read(["--connection-file", "c"]) == Start(file="c")
    # What nbclient and papermill add for a kernel called python3.
    assert read(["-f", "c", "--HistoryManager.hist_file=:memory:"]) == Start(file="c")


def test_the_environments_own_jupyter_starts_it_by_a_process_that_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    folder = frozen.install("mine", None, Place(prefix=str(tmp_path)))
    spec = json.loads(Path(folder, "kernel.json").read_text())
    assert spec["metadata"]["kernel_provisioner"]["provisioner_name"] == "container-kernel-spare"


@pytest.mark.parametrize("words", [[], ["-f"], ["x"], ["--image", "a"], ["-f", "c", "--what", "x"]])
def test_a_command_line_that_says_nothing_is_refused(words):
    with pytest.raises(SystemExit, match="usage"):
        read(words)


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("iris:1.0", f"iris:1.0@{DIGEST}"),
        ("./notebook.ipynb", f"kernels/n:latest@{DIGEST}"),
        ("/a/layout", f"kernels/n:latest@{DIGEST}"),
        (DIGEST, f"kernels/n:latest@{DIGEST}"),
        (f"iris@{DIGEST}", f"kernels/n:latest@{DIGEST}"),
    ],
)
def test_a_frozen_kernel_stands_on_a_digest_with_a_readable_name(image, reference):
    assert Frozen(image, DIGEST, "python").reference("n") == reference


def test_the_kernelspec_has_language_digest_and_logo(place):
    frozen.install("iris", Frozen("iris:1.0", DIGEST, "bash"), Place(), display_name="Iris")
    spec = KernelSpecManager().get_kernel_spec("iris")
    assert (spec.display_name, spec.language, spec.interrupt_mode) == ("Iris", "bash", "message")
    assert spec.metadata["container_kernel"] == {"image": "iris:1.0", "digest": DIGEST}
    assert (place / "iris" / "logo-svg.svg").exists()


def test_a_kernel_of_somebody_else_is_not_overwritten(place):
    (place / "ir").mkdir(parents=True)
    (place / "ir" / "kernel.json").write_text('{"argv": ["R"], "display_name": "R"}')
    with pytest.raises(UsageError, match="ir is another kernel: R"):
        frozen.install("ir", Frozen("iris:1.0", DIGEST, "R"), Place())
    with pytest.raises(UsageError, match="no kernel of ours is called 'ir'"):
        frozen.remove("ir")


def test_what_is_ours_is_listed_and_removed(place):
    frozen.install("mine", None, Place())
    frozen.install("iris", Frozen("iris:1.0", DIGEST, "python"), Place())
    ours = {one.name: one.digest for one in frozen.installed()}
    assert ours["iris"] == DIGEST
    assert ours["mine"] is None
    frozen.remove("mine")
    assert not (place / "mine").exists()


def test_an_image_needs_a_name_of_its_own():
    done = command("install", "--image", "busybox")
    assert done.returncode == 2
    assert "--image needs a --name of its own" in done.stderr


# Real kernels


@pytest.mark.privileged
def test_an_installed_image_is_a_kernel(place, named):
    done = command("install", "--image", "busybox", "--name", "bb", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter_client.kernelspecapp", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    spec = json.loads(listed.stdout)["kernelspecs"]["bb"]["spec"]
    assert spec["language"] == said["language"] == "bash"
    assert spec["metadata"]["container_kernel"]["digest"] == said["digest"]
    kernel = named("bb")
    assert kernel.language == "bash"  # before the container can have said so
    assert kernel.text("pwd; cat /etc/passwd | wc -l").split()[0] == "/work"
    assert said["digest"] in kernel.text("%layers")


@pytest.mark.privileged
def test_build_cells_stand_on_the_frozen_image(place, named, tmp_path):
    command("install", "--image", "busybox", "--name", "bb")
    notebook = tmp_path / "x.ipynb"
    cell = {"cell_type": "code", "id": "one", "source": "", "metadata": {}, "outputs": []}
    notebook.write_text(json.dumps({"cells": [cell], "nbformat": 4, "metadata": {}}))
    first = named("bb", JPY_SESSION_NAME="x.ipynb")
    _, outputs = first.run("%%build\necho built > /note")
    assert any("1/1" in str(message["content"]) or "[1]" in str(message["content"])
               for message in outputs)  # fmt: skip
    assert first.text("cat /note").strip().endswith("built")
    first.close()
    again = named("bb", JPY_SESSION_NAME="x.ipynb")  # recalls the step on the same image
    assert again.text("cat /note").strip() == "built"
    reply, _ = again.run("%base busybox --as other")
    assert reply["status"] == "ok"
    assert again.run("cat /note")[0]["status"] == "error"


@pytest.mark.privileged
def test_freeze_makes_a_kernel_of_what_run_cells_wrote(place, named):
    command("install", "--name", "plain")
    kernel = named("plain")
    kernel.run("%base busybox")
    kernel.run("echo kept > ~/note")
    shown = kernel.text("%freeze note:1 --kernel with-note")
    assert "with-note is a kernel" in shown
    spec = KernelSpecManager().get_kernel_spec("with-note")
    assert (spec.language, spec.metadata["container_kernel"]["image"]) == ("bash", "note:1")
    assert named("with-note").text("cat ~/note").strip() == "kept"


@pytest.mark.privileged
def test_a_notebook_on_a_frozen_kernel_runs_headless(place, tmp_path):
    command("install", "--image", "busybox", "--name", "bb")
    cell = {"cell_type": "code", "id": "one", "source": "pwd", "metadata": {}, "outputs": []}
    metadata = {"kernelspec": {"name": "bb", "display_name": "bb"}}
    notebook = {"cells": [{**cell, "execution_count": None}], "metadata": metadata}
    text = json.dumps({**notebook, "nbformat": 4, "nbformat_minor": 5})
    (tmp_path / "x.ipynb").write_text(text)
    done = command("run", "x.ipynb", "-o", "out.ipynb", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    executed = json.loads((tmp_path / "out.ipynb").read_text())
    assert executed["cells"][0]["outputs"][0]["text"] in ("/work\n", ["/work\n"])
    (tmp_path / "x.ipynb").write_text(text.replace('"bb"', '"python3"'))  # nobody's, or another's
    assert "%base" in command("run", "x.ipynb", cwd=tmp_path).stderr


@pytest.mark.privileged
def test_a_missing_image_is_told_in_the_first_cell(place, named):
    frozen.install("gone", Frozen("iris:1.0", DIGEST, "python"), Place())
    kernel = named("gone")
    reply, _ = kernel.run("1")
    assert reply["ename"] == "BaseNotFound"
    assert f"image is not in the store: 'iris:1.0@{DIGEST}'" in reply["evalue"]
    assert kernel.run("%base busybox")[0]["status"] == "ok"  # the way out
    assert kernel.text("echo fine").strip() == "fine"


@pytest.mark.privileged
def test_removing_a_kernel_lets_its_image_go(place):
    command("install", "--image", "busybox", "--name", "bb")
    assert "kernels/bb:latest" in command("image", "list").stdout
    assert "bb" in command("install", "--list").stdout
    assert command("install", "--remove", "bb").returncode == 0
    assert "kernels/bb:latest" not in command("image", "list").stdout
    assert not (place / "bb").exists()


@pytest.mark.privileged
@needs_entry_point
def test_a_provisioned_kernel_without_its_image_says_so(place, named):
    provisioned(place, "lost", "nowhere:1")
    reply, _ = named("lost").run("1")
    assert reply["ename"] == "BaseNotFound"
    assert "nowhere:1" in reply["evalue"]


@pytest.mark.privileged
@needs_entry_point
def test_a_provisioned_kernel_runs_the_kernelspecs_own_command(place, named, tmp_path):
    # Not a kernel that answers: what it was started with is what is to be seen.
    argv = ["/host/only/sh", "-c", "echo $0 $GREETING $HOST_ONLY > /work/seen", "{connection_file}"]
    environ = {"GREETING": "hello", "PYTHONHOME": "/nowhere"}  # which no Python of ours outlives
    provisioned(place, "odd", "busybox", argv=argv, env=environ)
    kernel = named("odd", HOST_ONLY="secret")
    reply, _ = kernel.run("1")
    assert reply["ename"] == "InnerKernelDied"
    file, *others = until(lambda: (tmp_path / "seen").read_text().split())
    assert file.startswith("/run/container-kernel/")
    assert others == ["hello"]
    process = kernel.manager.provisioner.process
    kernel.close()
    assert process.poll() is not None


@pytest.mark.privileged
@pytest.mark.slow
@needs_entry_point
def test_ipykernels_own_kernelspec_runs_in_a_container(place, named, monkeypatch):
    monkeypatch.delenv("CONTAINER_KERNEL_HOME")  # where other tests have built the same steps
    command("install", "--name", "plain")
    maker = named("plain")
    for code in ("%base debian:bookworm", "%apt python3", "%pip ipykernel matplotlib"):
        reply = maker.client.execute_interactive(code, timeout=900, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok", reply["content"]
    maker.run("%tag provisioned:test")
    provisioned(place, "inside", "provisioned:test")
    kernel = named("inside")
    where = "import os; print(os.getcwd(), os.path.exists('/run/container-kernel'))"
    assert kernel.text(where) == "/work True\n"
    msg_id = kernel.client.execute("import time; print('on'); time.sleep(60)")
    until(lambda: kernel.client.get_iopub_msg(timeout=20)["msg_type"] == "stream")
    kernel.manager.interrupt_kernel()  # by signal, as this kernelspec has it
    assert kernel.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=30)
    assert kernel.text("print('again')") == "again\n"
    kernel.run("%image rm provisioned:test")
