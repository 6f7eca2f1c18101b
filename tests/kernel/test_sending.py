"""``%send``: values of one stage's session in another's; with real containers."""

from __future__ import annotations

import os

import pytest

from tests.kernel.conftest import ROOT, Kernel, LocalManager
from tests.kernel.test_real import ARGV, RealKernel

pytestmark = pytest.mark.privileged


def build(kernel, *cells):
    for code in cells:
        reply = kernel.client.execute_interactive(code, timeout=900, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok", reply["content"]


@pytest.fixture(scope="module")
def shells(tmp_path_factory, oci_runtime):
    """A notebook with two shells, ``a`` and ``b``."""
    folders = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("home")
    kernel = RealKernel(*folders, oci_runtime)
    build(kernel, "%base busybox --as a", "%base busybox --as b", "%use a")
    yield kernel
    kernel.close()


class Default(Kernel):
    """On the default store, where other tests have built the same steps."""

    def __init__(self, folder):
        self.manager = LocalManager()
        self.manager.argv = ARGV
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": path}, cwd=str(folder))
        self.client = self.new_client()


@pytest.fixture(scope="module")
def languages(tmp_path_factory):
    """A notebook with a shell (``sh``), our Python agent (``py``) and ipykernel (``ipy``)."""
    kernel = Default(tmp_path_factory.mktemp("notebook"))
    build(kernel, "%base busybox --as sh")
    build(kernel, "%base debian:bookworm --as ipy", "%apt python3", "%pip ipykernel matplotlib")
    build(kernel, "%base debian:bookworm --as py", "%apt python3")
    yield kernel
    kernel.close()


def failure(kernel, code):
    reply, _ = kernel.run(code)
    assert reply["status"] == "error", code
    return reply["evalue"]


def test_text_arrives_as_it_was_between_shells(shells):
    shells.run("x=' two  words\n\nwith \"quotes\" $HOME\n\n'; y=5")
    shells.run("%send x y --to b")
    shells.run("%send y --to b --as z")
    shells.run("%use b")
    assert shells.text('printf "[%s]" "$x"; echo $y$z') == (
        '[ two  words\n\nwith "quotes" $HOME\n\n]55\n'
    )
    shells.run("%use a")


def test_the_sessions_go_on_and_see_nothing_of_it(shells):
    shells.run("kept=1; v=2")
    reply, outputs = shells.run("%send v --to b")
    assert [m["content"] for m in outputs if m["msg_type"] not in ("status", "execute_input")] == []
    assert shells.run("echo $kept")[0]["execution_count"] == reply["execution_count"] + 1
    assert shells.text("echo $kept").strip() == "1"
    assert "value" not in shells.text("ls /run/container-kernel; true").replace("commands", "")


def test_it_goes_from_a_stage_that_is_not_current(shells):
    shells.run("%use b")
    shells.run("only_here=yes")
    shells.run("%use a")
    shells.run("%send only_here --from b --to a")
    assert shells.text("echo $only_here").strip() == "yes"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("%send missing --to b", "there is no variable missing"),
        ("%send x --to a", "x is in stage a already"),
        ("%send x --to nowhere", "no stage called 'nowhere'"),
        ("%send x", "%send needs --to STAGE"),
        ("%send 1x --to b", "takes names of variables, found '1x'"),
        ("%send x;id --to b", "takes names of variables, found 'x;id'"),
        ("%send x y --to b --as z", "--as of %send names one variable"),
        ("%send x --to b\n%layers", "%send and %layers are in one cell"),
    ],
)
def test_mistakes_say_what_they_are(shells, code, said):
    shells.run("x=1; y=1")
    assert said in failure(shells, code)
    assert shells.text("echo $x").strip() == "1"


def test_only_the_cell_itself_decides_what_its_failure_stops(shells):
    first = shells.client.execute("%send missing --to b", stop_on_error=False)
    second = shells.client.execute("echo went on")
    assert shells.reply_to(first)["content"]["status"] == "error"
    assert shells.reply_to(second)["content"]["status"] == "ok"
    first = shells.client.execute("%send missing --to b")
    second = shells.client.execute("echo never")
    assert shells.reply_to(first)["content"]["status"] == "error"
    assert shells.reply_to(second)["content"]["status"] == "aborted"


def test_a_variable_that_takes_no_value_is_told(shells):
    shells.run("fixed=2")
    shells.run("%use b")
    shells.run("readonly fixed=1")
    shells.run("%use a")
    assert "fixed did not arrive" in failure(shells, "%send fixed --to b")
    assert shells.text("echo $fixed").strip() == "2"


def test_files_need_no_sending(shells):
    shells.run("echo shared > /work/file")
    assert shells.text("%%run --stage b cat /work/file").strip() == "shared"


@pytest.mark.slow
@pytest.mark.parametrize("python", ["py", "ipy"])
def test_a_shell_and_a_python_exchange_values(languages, python):
    kernel = languages
    kernel.run(f"%use {python}")
    kernel.run("n, text, data, nothing = 3, 'ü\\n\\n', {'a': [1, 2.5, None]}, None")
    kernel.run("%send n text data nothing --to sh")
    kernel.run("%use sh")
    shown = kernel.text('printf "%s|" "$n" "$text" "$data" "$nothing"')
    assert shown == '3|ü\n\n|{"a": [1, 2.5, null]}||'
    kernel.run("back='from sh\n'")
    kernel.run(f"%send back --to {python}")
    kernel.run(f"%use {python}")
    assert kernel.text("print(repr(back))") == "'from sh\\n'\n"
    assert kernel.text("%%run --stage sh\necho $((1 + 1))").strip() == "2"


@pytest.mark.slow
@pytest.mark.parametrize(("origin", "target"), [("py", "ipy"), ("ipy", "py")])
def test_values_go_between_pythons_or_say_why_not(languages, origin, target):
    kernel = languages
    kernel.run(f"%use {origin}")
    kernel.run("import math; data = {'a': [1, 2.5, None, True, math.inf]}; thing = object()")
    kernel.run(f"%send data --to {target} --as copy")
    assert "thing cannot be sent" in failure(kernel, f"%send thing --to {target}")
    assert "there is no variable missing" in failure(kernel, f"%send missing --to {target}")
    assert "_ck" not in kernel.text("print(sorted(globals()))")
    kernel.run(f"%use {target}")
    assert kernel.text("print(copy)") == "{'a': [1, 2.5, None, True, inf]}\n"


@pytest.mark.slow
@pytest.mark.parametrize("python", ["py", "ipy"])
def test_what_a_python_printed_is_the_input_of_a_run(languages, python):
    languages.run(f"%use {python}")
    languages.run("import sys; print('printed', 'inside'); print('aside', file=sys.stderr); 42")
    assert languages.text("%%run --stage sh --stdin-cell last cat") == "printed inside\n"


@pytest.mark.slow
def test_a_session_that_ends_meanwhile_is_told(languages):
    languages.run("%use py")
    languages.run("class Bomb(dict):\n    def items(self):\n        import os; os._exit(9)")
    languages.run("bomb = Bomb(a=1)")
    assert "the session ended while bomb was sent" in failure(languages, "%send bomb --to sh")
    assert languages.text("print('a new one')") == "a new one\n"
