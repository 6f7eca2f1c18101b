"""What only the agents need of their outer side: comms, threads, look-ups in a shell, history."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.kernel.conftest import TIMEOUT_S, types, until

SHELLS = [name for name in ("dash", "bash", "busybox") if shutil.which(name)]


@pytest.fixture
def python(start):
    return start("python")


def ask(kernel, request, content):
    """Any request on shell: what was published for it."""
    message = kernel.client.session.msg(request, content)
    kernel.client.shell_channel.send(message)
    return message["header"]["msg_id"]


def test_comms_carry_buffers_both_ways(python):
    pytest.importorskip("comm")
    python.run(
        "from comm import get_comm_manager\n"
        "def answer(comm, m):\n"
        "    print('heard')\n"
        "    comm.send({'n': 1}, buffers=[bytes(m['buffers'][0])[::-1]])\n"
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda m: answer(comm, m))\n"
        "get_comm_manager().register_target('echo', opened)"
    )
    session, channel = python.client.session, python.client.shell_channel
    channel.send(session.msg("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}}))
    message = session.msg("comm_msg", {"comm_id": "c", "data": {}})
    session.send(channel.socket, message, buffers=[b"abc\0"])
    messages = python.outputs_until_idle(message["header"]["msg_id"])
    kinds = [kind for kind, _ in itertools.groupby(types(messages))]  # what is printed may be cut
    assert kinds == ["status", "stream", "comm_msg", "status"]
    assert [bytes(buffer) for buffer in messages[-2]["buffers"]] == [b"\0cba"]
    info = python.reply_to(ask(python, "comm_info_request", {"target_name": "echo"}))["content"]
    assert info["comms"] == {"c": {"target_name": "echo"}}
    assert python.text("print('on')") == "on\n"


def test_a_comm_nobody_knows_is_closed(python):
    python.run("pass")
    content = {"comm_id": "u", "target_name": "nobody", "data": {}}
    messages = python.outputs_until_idle(ask(python, "comm_open", content))
    assert types(messages) == ["status", "comm_close", "status"]
    assert messages[1]["content"]["comm_id"] == "u"


def test_a_thread_speaks_for_its_own_cell(python):
    code = (
        "import threading\ngo, done = threading.Event(), threading.Event()\n"
        "def work():\n    go.wait()\n    print('late')\n    display('too')\n    done.set()\n"
        "threading.Thread(target=work).start()"
    )
    first = python.client.execute(code)
    python.reply_to(first)
    second = python.client.execute("go.set(); done.wait(); print('other')")
    found = {first: [], second: []}
    while len(found[first]) < 2 or len(found[second]) < 1:
        message = python.client.get_iopub_msg(timeout=TIMEOUT_S)
        if message["msg_type"] in ("stream", "display_data"):
            found[message["parent_header"]["msg_id"]].append(message["msg_type"])
    assert found == {first: ["stream", "display_data"], second: ["stream"]}


def test_output_after_idle_is_the_last_cells(python):
    code = "import threading\nthreading.Timer(0.2, lambda: print('late')).start()"
    msg_id = python.client.execute(code)
    python.outputs_until_idle(msg_id)
    message = python.client.get_iopub_msg(timeout=TIMEOUT_S)
    assert (message["msg_type"], message["parent_header"]["msg_id"]) == ("stream", msg_id)


def test_magics_of_the_agent_pass_and_others_are_explained(python):
    assert "Wall time" in python.text("%time x = 1")
    assert "Wall time" in python.text("%%time\nx = 2")
    assert python.run("%matplotlib inline")[0]["status"] == "ok"
    reply, _ = python.run("%load_ext autoreload")
    assert "%pip ipykernel" in reply["evalue"]
    matches = python.reply_to(python.client.complete("%timei"))["content"]["matches"]
    assert matches == ["%timeit"]
    assert python.reply_to(python.client.complete("%prec"))["content"]["matches"] == []


def test_history(python):
    for code in ("one = 1", "one + 1", "two = 'x'"):
        python.run(code)
    python.run("one + 1", store_history=False)
    found = python.reply_to(python.client.history(hist_access_type="tail", n=2, output=True))
    codes = [item[2] for item in found["content"]["history"]]
    assert codes == [["one + 1", "2"], ["two = 'x'", None]]
    found = python.reply_to(python.client.history(hist_access_type="search", pattern="on?*", n=9))
    assert [item[2] for item in found["content"]["history"]][-2:] == ["one = 1", "one + 1"]


def test_a_question_while_a_cell_ends_the_session_is_answered(fresh):
    kernel = fresh("python")
    kernel.run("pass")
    cell = kernel.client.execute("import os, time; time.sleep(0.5); os._exit(3)")
    question = kernel.client.complete("pri")
    assert kernel.reply_to(question)["content"]["status"] == "error"
    assert kernel.reply_to(cell)["content"]["ename"] == "InnerKernelDied"
    assert kernel.text("print('again')") == "again\n"


@pytest.fixture(scope="module", params=SHELLS)
def shell(request, tmp_path_factory):
    from tests.kernel.conftest import Kernel

    folder = tmp_path_factory.mktemp(request.param)
    program = folder / "sh"
    program.symlink_to(shutil.which(request.param))
    (folder / "work").mkdir()
    kernel = Kernel("sh", folder / "work", {"TEST_SHELL": str(program)})
    kernel.run("mkdir -p 'a dir/inner'; touch 'a dir/file one' other; VALUE=1; cd \"$PWD\"")
    yield kernel
    kernel.close()


def completions(kernel, code):
    reply = kernel.reply_to(kernel.client.complete(code))["content"]
    return [code[: reply["cursor_start"]] + match for match in reply["matches"]]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("cat oth", "cat other"),
        ("cat a", "cat a\\ dir/"),
        ("cat a\\ dir/f", "cat a\\ dir/file\\ one"),
        ("ls >oth", "ls >other"),
        ("touc", "touch"),
        ("true; if touc", "true; if touch"),
        ("x=$(touc", "x=$(touch"),
        ("unal", "unalias"),
        ("echo $VAL", "echo $VALUE"),
        ("echo ${VAL", "echo ${VALUE"),
        ("./oth", "./other"),
    ],
)
def test_completion_in_a_shell(shell, code, expected):
    assert expected in completions(shell, code)


def test_completion_in_a_shell_says_nothing_of_ours(shell):
    assert completions(shell, "__ck") == []
    assert completions(shell, "echo $__ck") == []
    assert completions(shell, "echo $no_such_variable") == []
    assert completions(shell, "cat /no/such/folder/x") == []


def test_completion_while_a_shells_cell_runs_is_empty_and_harmless(shell):
    cell = shell.client.execute("sleep 0.5; echo done")
    assert completions(shell, "touc") == []
    assert shell.reply_to(cell)["content"]["status"] == "ok"
    assert "touch" in completions(shell, "touc")


def test_look_ups_leave_output_alone(shell):
    cell = shell.client.execute("(sleep 0.1; echo late) & echo now; true")
    shell.reply_to(cell)
    for _ in range(5):
        completions(shell, "touc")
    text = ""
    while "late" not in text:
        message = shell.client.get_iopub_msg(timeout=TIMEOUT_S)
        if (message["msg_type"], message["parent_header"]["msg_id"]) == ("stream", cell):
            text += message["content"]["text"]
    assert text.split() == ["now", "late"]


def test_state_of_a_shell_is_kept(shell):
    shell.run("f() { echo [$1]; }; word='two words'; cd /")
    assert shell.text("f x; echo $word; pwd").split("\n")[:3] == ["[x]", "two words", "/"]
    shell.run("cd -")
    reply, _ = shell.run("(exit 5)")
    assert (reply["ename"], "exit status 5" in reply["evalue"]) == ("ExitStatus", True)
    reply, _ = shell.run("if true; then")
    assert reply["status"] == "error"
    assert shell.text("echo $word").strip() == "two words"


def test_help_in_a_shell(shell):
    shell.run("word='two words'")
    for code, expected in (("cd", "cd"), ("touch", "touch"), ("echo $word", "two words")):
        found = shell.reply_to(shell.client.inspect(code, len(code)))["content"]
        assert expected in found["data"]["text/plain"]
    assert not shell.reply_to(shell.client.inspect("no_such_thing"))["content"]["found"]


@pytest.mark.parametrize(
    "code",
    ["exec >/dev/null", "exec 2>/dev/null", "exec >&- 2>&-; echo x", "PS1='x> '", "return 0"],
)
def test_what_would_hide_the_prompt_ends_with_its_cell(shell, code):
    shell.run(code)
    assert shell.text("echo on; echo too >&2").split() == ["on", "too"]
    assert shell.run("(exit 5)")[0]["evalue"].endswith("5")


def interrupt_a_cell(shell):
    msg_id = shell.client.execute("echo on; sleep 20")
    until(lambda: shell.client.get_iopub_msg(timeout=TIMEOUT_S)["msg_type"] == "stream")
    shell.manager.interrupt_kernel()
    assert shell.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"


def test_an_interrupt_that_reaches_the_shell_late_is_not_the_next_cells(shell):
    """It comes when the shell has read the next line, and throws that away with its input."""
    pid = int(shell.text("echo $$"))
    interrupt_a_cell(shell)
    with starved(pid):
        os.kill(pid, signal.SIGINT)
        msg_id = shell.client.execute("echo on")
        time.sleep(0.05)  # signal and line are both there before the shell has a turn
    assert shell.reply_to(msg_id)["content"]["status"] == "ok"


def test_an_interrupt_at_any_moment_stops_its_own_cell_or_none(shell):
    chance = random.Random(7)
    for number in range(60):
        msg_id = shell.client.execute("true")
        time.sleep(chance.uniform(0, 0.004))
        shell.ask_control("interrupt_request")
        assert shell.reply_to(msg_id)["content"].get("ename") in {None, "KeyboardInterrupt"}
        assert shell.text(f"echo {number}").split()[-1:] == [str(number)]


def test_a_cell_that_waits_for_an_earlier_interrupt_is_interrupted_itself(shell):
    pid = int(shell.text("echo $$"))
    interrupt_a_cell(shell)
    os.kill(pid, signal.SIGSTOP)
    msg_id = shell.client.execute("echo never")
    shell.ask_control("interrupt_request")
    os.kill(pid, signal.SIGCONT)
    assert shell.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    assert shell.text("echo again").split()[-1:] == ["again"]


def test_an_interrupt_that_was_answered_is_not_the_next_cells(shell):
    interrupt_a_cell(shell)
    assert "whole" in shell.text("sleep 0.3; echo whole")


def test_an_interrupt_before_the_agent_has_read_its_cell_is_not_lost(python):
    pid = int(python.text("import os; print(os.getpid())"))
    for number in range(5):
        os.kill(pid, signal.SIGSTOP)
        msg_id = python.client.execute("while True: pass")
        python.ask_control("interrupt_request")
        os.kill(pid, signal.SIGCONT)
        assert python.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"
        assert python.text(f"print({number})").split() == [str(number)]


@contextmanager
def starved(pid):
    """A process that has no turn, though it could run: another keeps its processor busy."""
    processors, cpu = os.sched_getaffinity(pid), min(os.sched_getaffinity(0))
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for one in (pid, hog.pid):
            os.sched_setaffinity(one, {cpu})
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        time.sleep(0.1)
        yield
    finally:
        hog.kill()
        hog.wait()
        os.sched_setaffinity(pid, processors)
