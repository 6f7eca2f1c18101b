"""What front ends rely on, for every kind of inner kernel."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.kernel.conftest import TIMEOUT_S, types, until

BOTH = ("ipykernel", "python")
ALL = (*BOTH, "sh")
HELLO = {"ipykernel": "print('hello')", "python": "print('hello')", "sh": "echo hello"}
# Late enough that what was sent behind it is there before it fails.
_FAIL = "import time; time.sleep(0.5); 1/0"
FAIL = {"ipykernel": _FAIL, "python": _FAIL, "sh": "sleep 0.5; false"}
SLEEP = {
    "ipykernel": "import time; time.sleep(20)",
    "python": "import time; time.sleep(20)",
    "sh": "sleep 20; echo never",
}
every_kind = pytest.mark.parametrize("kind", ALL)
python_kinds = pytest.mark.parametrize("kind", BOTH)


@pytest.fixture
def kernel(start, kind):
    return start(kind)


@every_kind
def test_output_is_between_busy_and_idle(kernel, kind):
    msg_id = kernel.client.execute(HELLO[kind])
    busy, shown, *printed, idle = kernel.outputs_until_idle(msg_id)
    assert types([busy, shown, idle]) == ["status", "execute_input", "status"]
    # On a busy host a line may come in parts.
    assert {(one["msg_type"], one["content"]["name"]) for one in printed} == {("stream", "stdout")}
    assert "".join(one["content"]["text"] for one in printed) == "hello\n"
    assert kernel.reply_to(msg_id)["content"]["status"] == "ok"


@every_kind
def test_all_messages_are_of_one_session(kernel, kind):
    code = "%help use"
    found = [*kernel.run(HELLO[kind])[1], *kernel.run(code)[1], *kernel.run(HELLO[kind])[1]]
    info = kernel.ask_control("kernel_info_request")
    assert {m["header"]["session"] for m in found} == {info["header"]["session"]}


@every_kind
def test_parent_is_a_copy_of_the_request(kernel, kind):
    message = kernel.client.session.msg("execute_request", {"code": HELLO[kind], "silent": False})
    message["header"]["unheard_of"] = {"a": 1}
    kernel.client.shell_channel.send(message)
    outputs = kernel.outputs_until_idle(message["header"]["msg_id"])
    assert {m["parent_header"]["unheard_of"]["a"] for m in outputs} == {1}


@every_kind
def test_cells_share_one_numbering(kernel, kind):
    first = kernel.run(HELLO[kind])[0]["execution_count"]
    assert kernel.run("%help use")[0]["execution_count"] == first + 1
    reply, outputs = kernel.run(HELLO[kind])
    assert reply["execution_count"] == first + 2
    counts = [m["content"]["execution_count"] for m in outputs if m["msg_type"] == "execute_input"]
    assert counts == [first + 2]


@every_kind
def test_error_aborts_the_cells_behind_it(kernel, kind):
    ids = [kernel.client.execute(code) for code in (FAIL[kind], HELLO[kind], "%help use")]
    replies = [kernel.reply_to(msg_id)["content"] for msg_id in ids]
    assert [reply["status"] for reply in replies] == ["error", "aborted", "aborted"]
    assert types(kernel.outputs_until_idle(ids[2])) == ["status", "status"]


@every_kind
def test_error_without_stop_on_error_aborts_nothing(kernel, kind):
    first = kernel.client.execute(FAIL[kind], stop_on_error=False)
    second = kernel.client.execute(HELLO[kind])
    assert kernel.reply_to(first)["content"]["status"] == "error"
    assert kernel.reply_to(second)["content"]["status"] == "ok"


@every_kind
def test_failed_magic_aborts_too(kernel, kind):
    slow = FAIL[kind].replace("1/0", "1").replace("false", "true")
    ids = [kernel.client.execute(code) for code in (slow, "%apt --nonsense x", HELLO[kind])]
    replies = [kernel.reply_to(msg_id)["content"] for msg_id in ids]
    assert [reply["status"] for reply in replies] == ["ok", "error", "aborted"]
    assert "Traceback" not in "".join(replies[1]["traceback"])


@every_kind
@pytest.mark.parametrize("by_signal", [False, True])
def test_interrupt_stops_the_cell_and_keeps_the_kernel(kernel, kind, by_signal):
    kernel.run(HELLO[kind])
    start = time.monotonic()
    msg_id = kernel.client.execute(SLEEP[kind])
    while kernel.client.get_iopub_msg(timeout=TIMEOUT_S)["msg_type"] != "execute_input":
        continue
    time.sleep(0.2)  # an interrupt before the sleep has begun would be as right, and no test
    if by_signal:
        os.kill(kernel.pid, signal.SIGINT)
    else:
        assert kernel.ask_control("interrupt_request")["content"]["status"] == "ok"
    reply = kernel.reply_to(msg_id)["content"]
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    assert time.monotonic() - start < 5
    assert "hello" in kernel.text(HELLO[kind])


@every_kind
def test_an_interrupt_at_any_moment_loses_no_cell(kernel, kind):
    kernel.run(HELLO[kind])
    chance = random.Random(5)
    for _ in range(60):
        msg_id = kernel.client.execute("true" if kind == "sh" else "pass")
        time.sleep(chance.uniform(0, 0.004))
        kernel.ask_control("interrupt_request")
        reply = kernel.reply_to(msg_id)["content"]
        assert reply.get("ename") in {None, "KeyboardInterrupt", "Interrupted"}
    assert "hello" in kernel.text(HELLO[kind])


@every_kind
def test_interrupt_of_an_idle_kernel_does_nothing(kernel, kind):
    kernel.run(HELLO[kind])
    assert kernel.ask_control("interrupt_request")["content"]["status"] == "ok"
    assert "hello" in kernel.text(HELLO[kind])


@every_kind
def test_death_is_told_and_the_next_cell_has_a_new_one(kernel, kind):
    # Not at once: ipykernel sends its outputs from a thread, which dies with it.
    die = "exit 7" if kind == "sh" else "import os, time; time.sleep(0.3); os._exit(7)"
    reply, outputs = kernel.run(die)
    assert reply["ename"] == "InnerKernelDied"
    assert "exit code 7" in reply["evalue"]
    assert types(outputs)[:2] == ["status", "execute_input"]
    assert "hello" in kernel.text(HELLO[kind])


@every_kind
def test_kill_is_told(kernel, kind):
    die = "kill -9 $$" if kind == "sh" else "import os; os.kill(os.getpid(), 9)"
    reply, _ = kernel.run(die)
    assert "SIGKILL" in reply["evalue"]


@every_kind
def test_control_answers_while_a_cell_runs(kernel, kind):
    kernel.run(HELLO[kind])
    msg_id = kernel.client.execute(SLEEP[kind])
    assert kernel.ask_control("kernel_info_request")["content"]["status"] == "ok"
    until(lambda: kernel.client.get_iopub_msg(timeout=TIMEOUT_S)["msg_type"] == "execute_input")
    assert kernel.ask_control("kernel_info_request")["content"]["status"] == "ok"
    kernel.ask_control("interrupt_request")
    assert kernel.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"


@every_kind
def test_silent_cell_is_not_shown_or_counted(kernel, kind):
    count = kernel.run(HELLO[kind])[0]["execution_count"]
    msg_id = kernel.client.execute("x=1", silent=True)
    assert types(kernel.outputs_until_idle(msg_id)) == ["status", "status"]
    kernel.reply_to(msg_id)
    assert kernel.run(HELLO[kind])[0]["execution_count"] == count + 1


@every_kind
def test_two_clients_get_their_own_replies(kernel, kind):
    other = kernel.new_client()
    try:
        mine, theirs = kernel.client.execute(HELLO[kind]), other.execute(HELLO[kind])
        assert kernel.reply_to(mine)["content"]["status"] == "ok"
        assert other.get_shell_msg(timeout=TIMEOUT_S)["parent_header"]["msg_id"] == theirs
    finally:
        other.stop_channels()


@python_kinds
@pytest.mark.parametrize("ask", ["input('name? ')", "__import__('getpass').getpass('name? ')"])
def test_input_is_asked_for_and_given(kernel, kind, ask):
    kernel.run("pass")
    msg_id = kernel.client.execute(f"print('got', {ask})", allow_stdin=True)
    request = kernel.client.get_stdin_msg(timeout=TIMEOUT_S)
    assert request["content"] == {"prompt": "name? ", "password": "getpass" in ask}
    kernel.client.input("Ada")
    texts = [m["content"].get("text", "") for m in kernel.outputs_until_idle(msg_id)]
    assert "got Ada\n" in "".join(texts)


@python_kinds
def test_a_question_waits_for_a_front_end_that_connects_a_moment_later(kernel, kind):
    other = kernel.manager.blocking_client()
    other.start_channels(stdin=False)
    try:
        other.wait_for_ready(timeout=TIMEOUT_S)
        msg_id = other.execute("print('got', input())", allow_stdin=True)
        time.sleep(0.5)
        other.stdin_channel.start()
        other.get_stdin_msg(timeout=5)
        other.input("Ada")
        while (reply := other.get_shell_msg(timeout=TIMEOUT_S))["parent_header"][
            "msg_id"
        ] != msg_id:
            continue
        assert reply["content"]["status"] == "ok"
    finally:
        other.stop_channels()


@python_kinds
def test_input_without_a_front_end_that_answers_is_an_error(kernel, kind):
    reply, _ = kernel.run("input()", allow_stdin=False)
    assert reply["ename"] == "StdinNotImplementedError"


@python_kinds
def test_interrupt_of_input(kernel, kind):
    kernel.run("pass")
    msg_id = kernel.client.execute("input()", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT_S)
    kernel.ask_control("interrupt_request")
    assert kernel.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"


@python_kinds
def test_row_40_hogs_on_all_processors_keep_no_interrupt_from_a_cell(kernel, kind):
    argv = ["sh", "-c", "while :; do :; done"]
    many = f"[subprocess.Popen({argv}) for _ in range({os.cpu_count() + 1})]"
    msg_id = kernel.client.execute(f"import subprocess\nhogs = {many}\nwhile True: pass")
    while kernel.client.get_iopub_msg(timeout=TIMEOUT_S)["msg_type"] != "execute_input":
        continue
    time.sleep(0.5)
    start = time.monotonic()
    assert kernel.ask_control("interrupt_request")["content"]["status"] == "ok"
    assert kernel.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    assert time.monotonic() - start < 5
    kernel.run("for hog in hogs: hog.kill(); hog.wait()")


@python_kinds
def test_display_id_updates_a_display(kernel, kind):
    code = "h = display(1, display_id='x'); h.update(2)"
    _, outputs = kernel.run(code)
    shown = [m for m in outputs if "display_data" in m["msg_type"]]
    assert types(shown) == ["display_data", "update_display_data"]
    assert {m["content"]["transient"]["display_id"] for m in shown} == {"x"}


@python_kinds
def test_prints_and_displays_stand_in_order(kernel, kind):
    code = "for i in range(20): print(i); display(i)"
    _, outputs = kernel.run(code)
    told = []
    for message in outputs:
        content = message["content"]
        told += content["text"].split() if "text" in content else []
        told += [content["data"]["text/plain"]] if "data" in content else []
    assert told == [str(i) for i in range(20) for _ in range(2)]


@python_kinds
def test_look_ups(kernel, kind):
    kernel.run("some_name = 'abc'")
    client = kernel.client
    matches = kernel.reply_to(client.complete("some_na"))["content"]["matches"]
    assert matches == ["some_name"]
    found = kernel.reply_to(client.inspect("some_name"))["content"]
    assert found["found"]
    assert "abc" in found["data"]["text/plain"]
    assert kernel.reply_to(client.is_complete("if x:"))["content"]["status"] == "incomplete"
    for begun in ("%%build", "%%sh\n", "%%build --name x"):
        assert kernel.reply_to(client.is_complete(begun))["content"]["status"] == "incomplete"
    assert kernel.reply_to(client.is_complete("%apt"))["content"]["status"] == "invalid"
    history = kernel.reply_to(client.history(hist_access_type="tail", n=1))["content"]["history"]
    assert history[-1][2] == "some_name = 'abc'"


@python_kinds
def test_user_expressions(kernel, kind):
    reply, _ = kernel.run("a = 2", user_expressions={"sum": "a + 1", "wrong": "b0"})
    assert reply["user_expressions"]["sum"]["data"]["text/plain"] == "3"
    assert reply["user_expressions"]["wrong"]["status"] == "error"


@every_kind
def test_our_magics_are_completed_and_explained(kernel, kind):
    client = kernel.client
    matches = kernel.reply_to(client.complete("%bas"))["content"]["matches"]
    assert "%base" in matches
    found = kernel.reply_to(client.inspect("%base", 5))["content"]
    assert "REF" in found["data"]["text/plain"]


@every_kind
def test_a_new_image_starts_a_new_session(kernel, kind):
    set_, show = ("x=1", "echo [$x]") if kind == "sh" else ("x = 1", "'x' in globals()")
    kernel.run(set_)
    kernel.run("%%build\ntrue")
    shown = kernel.text(show)
    assert "new session" in shown
    assert shown.split()[-1] in ("[]", "False")
    assert "new session" not in kernel.text(show)


def test_thousands_of_outputs_are_not_lost(start):
    kernel = start("ipykernel")
    _, outputs = kernel.run("for i in range(3000): display(i)")
    shown = [m["content"]["data"]["text/plain"] for m in outputs if m["msg_type"] == "display_data"]
    assert shown == [str(i) for i in range(3000)]


def test_comms_carry_buffers_both_ways(start):
    kernel = start("ipykernel")
    kernel.run(
        "from comm import create_comm, get_comm_manager\n"
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda m: comm.send({'n': 1}, buffers=[bytes(m['buffers'][0])[::-1]]))\n"
        "get_comm_manager().register_target('echo', opened)"
    )
    session, channel = kernel.client.session, kernel.client.shell_channel
    channel.send(session.msg("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}}))
    message = session.msg("comm_msg", {"comm_id": "c", "data": {}})
    session.send(channel.socket, message, buffers=[b"abc\0"])
    while (answer := kernel.client.get_iopub_msg(timeout=TIMEOUT_S))["msg_type"] != "comm_msg":
        continue
    assert [bytes(buffer) for buffer in answer["buffers"]] == [b"\0cba"]


def test_build_is_shown_live_and_interrupted(fresh):
    kernel = fresh("python")
    msg_id = kernel.client.execute("%%build\necho begun; sleep 30")
    shown = until(lambda: "begun" in str(kernel.client.get_iopub_msg(timeout=TIMEOUT_S)["content"]))
    assert shown
    start = time.monotonic()
    info = kernel.reply_to(kernel.client.kernel_info())
    assert info["content"]["status"] == "ok"
    assert kernel.reply_to(kernel.client.complete("%ba"))["content"]["matches"]
    assert time.monotonic() - start < 0.2
    kernel.ask_control("interrupt_request")
    assert kernel.reply_to(msg_id)["content"]["ename"] == "Interrupted"
    assert "1" in kernel.text("1")


@python_kinds
def test_look_ups_do_not_wait_for_the_cells_behind_a_build(fresh, kind):
    kernel = fresh(kind)
    kernel.run("some_name = 1")
    client = kernel.client
    build = client.execute("%%build\nsleep 30")
    behind = client.execute("1")
    for ask, answer in (
        (lambda: client.complete("some_na"), "some_name"),
        (lambda: client.complete("%bas"), "%base"),
        (lambda: client.inspect("%base", 5), "REF"),
        (lambda: client.is_complete("if x:"), "incomplete"),
        (lambda: client.kernel_info(), "python"),
    ):
        msg_id = ask()
        reply = client.get_shell_msg(timeout=TIMEOUT_S)
        assert reply["parent_header"]["msg_id"] == msg_id
        assert answer in str(reply["content"])
    kernel.ask_control("interrupt_request")
    assert kernel.reply_to(build)["content"]["ename"] == "Interrupted"
    assert kernel.reply_to(behind)["content"]["status"] == "aborted"


def test_cell_before_a_base_says_what_to_do(fresh):
    kernel = fresh("nothing")
    reply, outputs = kernel.run("1 + 1")
    assert reply["ename"] == "NoBase"
    assert "%base" in "".join(reply["traceback"])
    assert types(outputs) == ["status", "execute_input", "error", "status"]


def test_restart_and_shutdown_end_the_process(fresh):
    kernel = fresh("python")
    kernel.run("x = 1")
    pid = kernel.pid
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.pid != pid
    assert kernel.run("x")[0]["ename"] == "NameError"


@pytest.mark.parametrize("kind", ["nothing", "python", "sh"])
def test_without_a_debugger_inside_a_debug_request_is_answered(kernel):
    asked = {"type": "request", "seq": 5, "command": "debugInfo"}
    info = kernel.ask_control("debug_request", asked)["content"]
    assert info["success"]
    assert info["request_seq"] == 5
    assert not info["body"]["isStarted"]
    refused = kernel.ask_control("debug_request", {**asked, "command": "initialize"})["content"]
    assert not refused["success"]
    assert "%pip" in refused["message"]


@pytest.mark.parametrize("kind", ["ipykernel"])
def test_the_debugger_inside_is_asked(kernel):
    asked = {"type": "request", "seq": 5, "command": "debugInfo"}
    assert kernel.ask_control("debug_request", asked)["content"]["body"]["richRendering"]
