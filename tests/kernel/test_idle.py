"""A session that nobody uses stands still, and is there again as if nothing had been."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time

import pytest

from tests.kernel.conftest import TIMEOUT_S, until
from tests.kernel.processes import descendants, name, namespaces, state
from tests.kernel.test_real import RealKernel
from tests.kernel.test_sending import Default, build

pytestmark = pytest.mark.privileged
IDLE_S = 0.15
PYTHON = {
    "set": "x = 5",
    "show": "print(x)",
    "count": "import threading, time\ndef count():\n    for n in range(10**6):\n"
    "        open('/work/count', 'w').write(str(n)); time.sleep(0.005)\n"
    "threading.Thread(target=count, daemon=True).start()",
    "sleep": "import time; time.sleep(0.6); print('slept')",
    "say bye": "import atexit; atexit.register(lambda: open('/work/bye', 'w').write('bye'))",
    "complete": ("pri", "print"),
}
CODE = {
    "sh": {
        "set": "x=5",
        "show": "echo $x",
        "count": "for n in $(seq 100000); do echo $n > /work/count; sleep 0.005; done &",
        "sleep": "sleep 0.6; echo slept",
        "say bye": "trap 'echo bye > /work/bye' EXIT",
        "complete": ("ech", "echo"),
    },
    "agent": PYTHON,
    "ipykernel": PYTHON,
}
BUILD = {
    "sh": ["%base busybox"],
    "agent": ["%base debian:bookworm", "%apt python3"],
    "ipykernel": ["%base debian:bookworm", "%apt python3", "%pip ipykernel matplotlib"],
}


@pytest.fixture
def start(tmp_path, home, monkeypatch):
    """Start a kernel on an image of a kind, whose containers soon stand still."""
    setting = f"c.ContainerKernel.idle_freeze = {IDLE_S}"
    (tmp_path / "container_kernel_config.py").write_text(setting)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    started = []

    def get(kind, oci_runtime="crun"):
        kernel = RealKernel(tmp_path, home, oci_runtime) if kind == "sh" else Default(tmp_path)
        started.append(kernel)
        build(kernel, *BUILD[kind])
        kernel.code = CODE[kind]
        kernel.run(kernel.code["set"])
        return kernel

    yield get
    for kernel in started:
        kernel.close()


@pytest.fixture(params=["sh", "agent", "ipykernel"])
def kernel(request, start):
    return start(request.param)


@pytest.fixture
def shell(start, oci_runtime):
    return start("sh", oci_runtime)


def inside(kernel):
    """The processes in its containers: pasta (passt), which boxes itself in too, is in none."""
    family = descendants(kernel.pid)
    own = namespaces(family[2], ["pid"])
    others = [pid for pid in family[3:] if state(pid) != "Z" and namespaces(pid, ["pid"]) != own]
    return [pid for pid in others if not name(pid).startswith("passt")]


def stands_still(kernel):
    found = inside(kernel)
    return found and all(state(pid) == "T" for pid in found)


def goes_on(kernel):
    return not any(state(pid) == "T" for pid in inside(kernel))


def test_what_runs_in_the_background_stands_still_too(kernel, tmp_path):
    kernel.run(kernel.code["count"])
    until(lambda: (tmp_path / "count").exists() and stands_still(kernel))
    before = (tmp_path / "count").read_text()
    time.sleep(0.1)
    assert (tmp_path / "count").read_text() == before
    assert kernel.text(kernel.code["show"]).strip() == "5"
    until(lambda: (tmp_path / "count").read_text() != before)


def test_nothing_is_lost_in_many_rounds_and_going_on_is_quick(kernel):
    took = []
    for _ in range(25):
        until(lambda: stands_still(kernel))
        begin = time.monotonic()
        assert kernel.text(kernel.code["show"]).strip() == "5"
        took.append(time.monotonic() - begin)
    assert statistics.median(took) < 0.05


def test_a_cell_that_runs_or_waits_is_left_alone(kernel):
    first, second = (kernel.client.execute(kernel.code["sleep"]) for _ in range(2))
    for msg_id in (first, second):
        outputs = kernel.outputs_until_idle(msg_id)
        assert "slept" in "".join(m["content"].get("text", "") for m in outputs)


def test_look_ups_are_answered(kernel):
    until(lambda: stands_still(kernel))
    code, name = kernel.code["complete"]
    reply = kernel.reply_to(kernel.client.complete(code))["content"]
    assert name in "".join(reply["matches"])
    until(lambda: stands_still(kernel))
    reply = kernel.reply_to(kernel.client.inspect(name))["content"]
    assert reply["found"]


def test_who_asks_whether_it_is_alive_wakes_nobody(kernel):
    until(lambda: stands_still(kernel))
    still = inside(kernel)
    kernel.client.kernel_info(reply=True, timeout=TIMEOUT_S)
    assert kernel.ask_control("kernel_info_request")["content"]["status"] == "ok"
    assert kernel.ask_control("usage_request")["content"]["kernel_memory"] > 0
    until(kernel.client.hb_channel.is_beating)
    assert [state(pid) for pid in still] == ["T"] * len(still)


def test_shut_down_while_it_stands_still_ends_in_order(kernel, tmp_path):
    kernel.run(kernel.code["say bye"])
    until(lambda: stands_still(kernel))
    begin = time.monotonic()
    kernel.client.shutdown()
    kernel.manager.provisioner.process.wait(TIMEOUT_S)
    assert time.monotonic() - begin < 3
    assert (tmp_path / "bye").read_text().strip() == "bye"


def test_comms_reach_who_stands_still(start):
    kernel = start("ipykernel")
    kernel.run(
        "from comm import get_comm_manager\n"
        "get_comm_manager().register_target('t', lambda comm, m: comm.send({'heard': 1}))"
    )
    until(lambda: stands_still(kernel))
    content = {"comm_id": "c", "target_name": "t", "data": {}}
    message = kernel.client.session.msg("comm_open", content)
    kernel.client.shell_channel.send(message)
    outputs = kernel.outputs_until_idle(message["header"]["msg_id"])
    assert [m["content"]["data"] for m in outputs if m["msg_type"] == "comm_msg"] == [{"heard": 1}]


def test_a_question_that_nobody_answers_yet_keeps_the_cell_running(start):
    kernel = start("agent")
    msg_id = kernel.client.execute("print(input('? '))", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT_S)
    time.sleep(3 * IDLE_S)
    kernel.client.input("typed")
    outputs = kernel.outputs_until_idle(msg_id)
    assert "typed" in "".join(m["content"].get("text", "") for m in outputs)


def test_a_subshell_that_runs_a_cell_is_left_alone(start):
    kernel = start("ipykernel")
    created = kernel.ask_control("create_subshell_request")["content"]
    if created.get("status") != "ok":
        pytest.skip("this ipykernel has no subshells")
    content = {"code": kernel.code["sleep"], "silent": False}
    message = kernel.client.session.msg("execute_request", content)
    message["header"]["subshell_id"] = created["subshell_id"]
    kernel.client.shell_channel.send(message)
    outputs = kernel.outputs_until_idle(message["header"]["msg_id"])
    assert "slept" in "".join(m["content"].get("text", "") for m in outputs)


def test_commands_and_layers_reach_who_stands_still(shell, tmp_path):
    for number, code in enumerate(itertools.chain(["%%sh\necho on"] * 3, ["%%run\necho on"])):
        until(lambda: stands_still(shell))
        assert shell.text(code).strip() == "on", number
    until(lambda: stands_still(shell))
    assert shell.run("%%build\necho frozen > /note")[0]["status"] == "ok"
    until(lambda: stands_still(shell))
    assert shell.text("cat /note; echo $x").split()[-2:] == ["frozen", "5"]


def test_an_interrupt_and_what_follows_it_find_it_going_on(shell):
    until(lambda: stands_still(shell))
    shell.ask_control("interrupt_request")
    until(lambda: stands_still(shell))
    msg_id = shell.client.execute("echo on; sleep 30")
    until(lambda: shell.client.get_iopub_msg(timeout=10)["msg_type"] == "stream")
    shell.ask_control("interrupt_request")
    assert shell.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    assert shell.text(shell.code["show"]).strip() == "5"


def test_a_session_that_was_killed_while_it_stood_still_has_another(shell):
    until(lambda: stands_still(shell))
    before = inside(shell)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: not set(before) & set(inside(shell)))
    # A cell that is there before its end was noticed is told of it.
    until(lambda: shell.text("echo there").strip() == "there")


def test_two_stages_stand_still_and_go_on_together(shell):
    shell.run("%base busybox --as other")
    shell.run("y=6")
    until(lambda: stands_still(shell))
    assert len({*map(tuple, (namespaces(pid, ["pid"]) for pid in inside(shell)))}) == 2
    assert shell.text("echo $y").strip() == "6"
    shell.run("%use main")
    assert shell.text("echo $x").strip() == "5"
