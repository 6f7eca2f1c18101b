"""Interactive stays interactive: what becomes of a session when cells build under it."""

from __future__ import annotations

import re

import pytest

from tests.kernel.test_real import RealKernel

pytestmark = pytest.mark.privileged
KEPT = "keeps its variables"
NEW = "new session"


@pytest.fixture(scope="module")
def home(shared_home):
    return shared_home


@pytest.fixture
def open_kernel(tmp_path, home, oci_runtime):
    """A kernel of this test that has run these cells."""
    kernels = []

    def open_kernel(*cells):
        kernels.append(RealKernel(tmp_path, home, oci_runtime))
        for cell in cells:
            reply, _ = kernels[-1].run(cell)
            assert reply["status"] == "ok", reply
        return kernels[-1]

    yield open_kernel
    for kernel in kernels:
        kernel.close()


@pytest.fixture
def kernel(open_kernel):
    """The shell agent on busybox, with the variable x."""
    return open_kernel("%base busybox", "x=5")


def build(kernel, body, cell_id, flags=""):
    """Run a build cell as a front end does that knows its cells; what it said."""
    return kernel.text(f"%%build {flags}\n{body}", cell_id=cell_id)


@pytest.fixture(autouse=True)
def cell_ids(monkeypatch):
    """Let ``text`` and ``run`` take a ``cell_id``."""
    real = RealKernel.run

    def run(self, code, *, cell_id=None, **options):
        if cell_id is None:
            return real(self, code, **options)
        session = self.client.session
        make = session.msg

        def msg(msg_type, content=None, **more):
            message = make(msg_type, content, **more)
            if msg_type == "execute_request":
                message["metadata"]["cellId"] = cell_id
            return message

        session.msg = msg
        try:
            return real(self, code, **options)
        finally:
            session.msg = make

    monkeypatch.setattr(RealKernel, "run", run)


def test_a_layer_slides_under_the_session(kernel):
    assert KEPT in build(kernel, "echo new > /new", "a")
    said = kernel.text("echo $x; cat /new")
    assert said.split() == ["5", "new"]
    assert kernel.text("%%sh\ncat /new").strip() == "new"


def test_nothing_is_said_before_any_cell_has_run(open_kernel):
    kernel = open_kernel("%base busybox")
    assert KEPT not in build(kernel, "echo new > /new", "a")
    assert kernel.text("cat /new").strip() == "new"


def test_an_edited_step_restarts_and_says_why(kernel):
    build(kernel, "echo one > /one", "a")
    build(kernel, "echo two > /two", "b")
    kernel.run("true")
    build(kernel, "echo changed > /one", "a")
    said = kernel.text("echo [$x]; cat /one")
    assert NEW in said
    assert "an earlier step changed" in said
    assert said.split()[-2:] == ["[]", "changed"]


def test_a_changed_environment_restarts_and_a_label_does_not(kernel):
    assert kernel.run("%label a=b")[0]["status"] == "ok"
    assert kernel.text("echo $x").strip() == "5"
    kernel.run("%env WORD=said")
    said = kernel.text("echo [$x] $WORD")
    assert "the environment changed" in said
    assert said.split()[-2:] == ["[]", "said"]


def test_restart_is_what_the_flag_says(kernel):
    assert KEPT not in build(kernel, "echo new > /new", "a", "--restart")
    said = kernel.text("echo [$x]; cat /new")
    assert NEW in said
    assert "--restart" in said
    assert said.split()[-2:] == ["[]", "new"]


def test_no_restart_stays_on_the_old_image(kernel):
    build(kernel, "echo one > /one", "a")
    said = build(kernel, "echo changed > /one", "a", "--no-restart")
    assert "on the image it has: an earlier step changed" in said
    assert kernel.text("echo $x; cat /one; ls /two 2>/dev/null; true").split() == ["5", "one"]
    assert kernel.text("%%sh\ncat /one").strip() == "one"
    build(kernel, "echo two > /two", "b")
    said = kernel.text("echo [$x]; cat /one /two")
    assert NEW in said
    assert said.split()[-3:] == ["[]", "changed", "two"]


def test_both_flags_are_a_mistake(kernel):
    reply, _ = kernel.run("%%build --restart --no-restart\ntrue")
    assert reply["ename"] == "BadArguments"


def test_who_stands_in_the_way_is_named(kernel):
    kernel.run("mkdir -p /tmp/here; cd /tmp/here")
    said = build(kernel, "echo new > /new", "a", "--no-restart")
    assert "sh (process" in said
    assert "/tmp/here" in said
    kernel.run("cd /work")
    assert KEPT in build(kernel, "echo newer > /newer", "b")
    assert kernel.text("echo $x; cat /new /newer").split() == ["5", "new", "newer"]


def test_the_flags_are_no_part_of_the_step(kernel):
    body = "cat /proc/sys/kernel/random/uuid > /same"  # built again, it would be another layer
    flags = ("", "--no-restart")
    one, other = (re.search(r"sha256:\w+", build(kernel, body, "a", it)) for it in flags)
    assert one[0] == other[0]


# Python, with the agent and with ipykernel


@pytest.fixture(params=["agent", "ipykernel"])
def python(request, open_kernel):
    """A Python session on Debian."""
    cells = ["%base debian:bookworm", "%apt python3"]
    if request.param == "ipykernel":
        cells.append("%pip ipykernel")
    kernel = open_kernel()
    for cell in cells:
        reply, _ = kernel.run(cell, timeout=300)
        assert reply["status"] == "ok", reply
    return kernel


def test_pip_in_the_middle_of_work(python):
    look = "x = [1, 2]\nimport importlib.util\nprint(importlib.util.find_spec('six'))"
    assert python.text(look).strip() == "None"
    assert KEPT in python.text("%pip install six==1.16.0")
    assert python.text("import six; print(six.__version__, x)").strip() == "1.16.0 [1, 2]"
    assert python.text("%%sh\npython3 -c 'import six; print(six.__version__)'").strip() == "1.16.0"
    # A package that is in use is replaced, and one more comes into the same folder.
    assert KEPT in python.text("%pip install six==1.17.0")
    assert KEPT in python.text("%pip install idna")
    assert python.text("import idna; print(six.__version__, x)").strip() == "1.16.0 [1, 2]"
    code = "import importlib; print(importlib.reload(six).__version__)"
    assert python.text(code).strip() == "1.17.0"


def test_a_lock_and_a_socket_stand_in_the_way(python):
    lock = "import fcntl, os; f = open(os.path.expanduser('~/lock'), 'w'); fcntl.flock(f, 2)"
    python.run(lock)
    assert "holds a lock on" in python.text("%%build --no-restart\necho 1 > /one")
    python.run("f.close(); import socket; s = socket.socket(socket.AF_UNIX)")
    python.run("s.bind('/tmp/socket'); s.listen()")
    assert "listens on the socket /tmp/socket" in python.text("%%build --no-restart\necho 2 > /two")
    python.run("s.close()")
    assert KEPT in python.text("%%build\necho 3 > /three")
    assert python.text("print(open('/three').read())").strip() == "3"


def test_the_agents_session_ends_when_the_image_gets_a_kernel(open_kernel):
    kernel = open_kernel()
    for cell in ("%base debian:bookworm", "%apt python3", "x = 1"):
        assert kernel.run(cell, timeout=300)[0]["status"] == "ok"
    assert KEPT not in kernel.text("%pip ipykernel", timeout=300)
    said = kernel.text("print(get_ipython())")
    assert "another kernel" in said
    assert "ZMQInteractiveShell" in said or "InteractiveShell" in said
