"""What strangers send: to the front, and from inside the container."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import zmq

from tests.kernel.conftest import types
from tests.kernel.forgetful_inner import FLOOD


@pytest.fixture
def sockets(start):
    """Sockets of our own to a kernel's channels."""
    kernel = start("python")
    info = kernel.manager.get_connection_info()
    context = zmq.Context()
    made = {}
    for name in ("shell", "control", "stdin"):
        made[name] = context.socket(zmq.DEALER)
        made[name].connect(f"tcp://{info['ip']}:{info[f'{name}_port']}")
    yield made
    context.destroy(linger=0)


def test_a_replayed_request_runs_once(start, sockets):
    kernel = start("python")
    kernel.run("runs = 0")
    session = kernel.client.session
    frames = session.serialize(session.msg("execute_request", {"code": "runs += 1"}))
    for _ in range(3):
        sockets["shell"].send_multipart(frames)
    sockets["shell"].recv_multipart()
    assert kernel.text("runs") == "1"


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("execute_request", {}),
        ("execute_request", {"code": 5}),
        ("execute_request", {"code": "1", "silent": "x", "user_expressions": 3}),
        ("complete_request", {"code": None, "cursor_pos": "x"}),
        ("complete_request", {"code": "%ba", "cursor_pos": -5}),
        ("inspect_request", {"code": "%base", "cursor_pos": 10**9}),
        ("is_complete_request", {"code": {}}),
        ("history_request", {"hist_access_type": 5, "n": "x"}),
        ("comm_info_request", {"target_name": []}),
        ("kernel_info_request", {"x": 1}),
    ],
)
def test_requests_with_odd_content_are_answered(start, msg_type, content):
    kernel = start("python")
    kernel.run("1")
    client = kernel.client
    message = client.session.msg(msg_type, content)
    client.shell_channel.send(message)
    reply = kernel.reply_to(message["header"]["msg_id"])
    assert reply["msg_type"] == msg_type.replace("_request", "_reply")
    assert "status" in reply["content"]


@pytest.mark.parametrize("kind", ["python", "ipykernel"])
def test_a_header_that_no_reply_could_name_holds_up_nobody(start, kind):
    """Half a character: ipykernel cannot write it into a reply, and never sends one."""
    kernel = start(kind)
    kernel.run("1")
    session = kernel.client.session
    message = session.msg("execute_request", {"code": "1", "silent": False})
    message["header"]["extra"] = "\ud800"
    dicts = [message[key] for key in ("header", "parent_header", "metadata", "content")]
    written = [json.dumps(one, default=str).encode() for one in dicts]
    frames = [b"<IDS|MSG>", session.sign(written), *written]
    kernel.client.shell_channel.socket.send_multipart(frames)
    assert "2" in kernel.text("1 + 1")


def test_unknown_requests_do_no_harm(start):
    kernel = start("python")
    for channel in (kernel.client.shell_channel, kernel.client.control_channel):
        channel.send(kernel.client.session.msg("made_up_request", {}))
        channel.send(kernel.client.session.msg("comm_msg", {"comm_id": "none"}))
    assert "2" in kernel.text("1 + 1")


@pytest.fixture
def hostile(fresh, tmp_path):
    return with_inner("hostile_inner.py", fresh, tmp_path)


@pytest.fixture
def forgetful(fresh, tmp_path):
    return with_inner("forgetful_inner.py", fresh, tmp_path)


def with_inner(script, fresh, tmp_path):
    folder = tmp_path / "kernels" / "odd"
    folder.mkdir(parents=True)
    argv = ["python", str(Path(__file__).with_name(script)), "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv}))
    return fresh("ipykernel", TEST_KERNELS=str(tmp_path / "kernels"))


def test_what_an_inner_kernel_forges_is_not_passed_on(hostile):
    msg_id = hostile.client.execute("1", allow_stdin=True)
    outputs = hostile.outputs_until_idle(msg_id)
    # It tells of no input; we do, if the cell is there before this kernel is.
    busy, *_, stream, idle = outputs
    assert types([busy, stream, idle]) == ["status", "stream", "status"]
    assert {*types(outputs)} <= {"status", "execute_input", "stream"}
    assert len(outputs) == 3 + types(outputs).count("execute_input")
    assert stream["content"]["text"] == "other session"
    assert len({m["header"]["session"] for m in outputs}) == 1
    reply = hostile.reply_to(msg_id)
    assert "forged" not in reply["content"]
    # And nothing else came: neither here nor on the other channels.
    assert hostile.ask_control("kernel_info_request")["msg_type"] == "kernel_info_reply"
    assert not hostile.client.stdin_channel.msg_ready()
    assert hostile.run("%help use")[0]["execution_count"] == 2
    assert hostile.manager.is_alive()


def test_a_reply_that_never_comes_holds_up_nobody(forgetful):
    forgetful.run("1")
    lost, behind = [forgetful.client.execute(code) for code in ("forget", "1")]
    assert "did not answer" in forgetful.reply_to(lost)["content"]["evalue"]
    assert forgetful.reply_to(behind)["content"]["status"] == "aborted"
    assert forgetful.run("1")[0]["status"] == "ok"


def test_an_interrupt_frees_a_cell_that_the_inner_kernel_has_swallowed(forgetful):
    forgetful.run("1")
    lost = forgetful.client.execute("swallow")
    while not forgetful.client.shell_channel.msg_ready():  # it may come before its cell
        forgetful.manager.interrupt_kernel()
        time.sleep(0.1)
    assert forgetful.reply_to(lost)["content"]["ename"] == "KeyboardInterrupt"
    assert forgetful.run("1")[0]["status"] == "ok"


def test_ten_thousand_messages_during_a_cell_do_not_lose_its_end(forgetful):
    forgetful.run("1")
    msg_id = forgetful.client.execute("wait")
    session, channel = forgetful.client.session, forgetful.client.shell_channel
    for _ in range(FLOOD):
        channel.send(session.msg("comm_msg", {"comm_id": "c", "data": {}}))
    assert forgetful.reply_to(msg_id)["content"]["status"] == "ok"
    assert forgetful.run("1")[0]["status"] == "ok"


def test_what_an_agent_forges_does_no_harm(fresh):
    kernel = fresh("python")
    lines = [
        b"nonsense",
        b"[]",
        b'{"op": "reply", "id": "nobody", "content": {"status": "ok"}}',
        b'{"op": "publish", "type": "execute_request", "content": {}}',
        b'{"op": "publish", "type": "display_data", "content": 5}',
        b'{"op": "input_request", "prompt": []}',
        b'{"op": "ready", "info": 5}',
        b"\xff\xfe" + b"[" * 100_000,
        b'{"op": "publish", "type": "stream", "content": {"a": NaN}}',
    ]
    code = (
        "import os\n"
        "fd = next(int(n) for n in os.listdir('/proc/self/fd')\n"
        "          if os.path.realpath(f'/proc/self/fd/{n}').endswith('events'))\n"
        f"for line in {lines!r}: os.write(fd, line + b'\\n')"
    )
    assert kernel.run(code, allow_stdin=False)[0]["status"] == "ok"
    assert "2" in kernel.text("1 + 1")


def test_an_endless_line_from_an_agent_ends_its_container_only(fresh):
    kernel = fresh("python")
    code = (
        "import os\n"
        "fd = next(int(n) for n in os.listdir('/proc/self/fd')\n"
        "          if os.path.realpath(f'/proc/self/fd/{n}').endswith('events'))\n"
        "while True: os.write(fd, b'x' * 65536)"
    )
    reply, _ = kernel.run(code)
    assert reply["ename"] == "InnerKernelDied"
    assert "2" in kernel.text("1 + 1")


def test_the_outer_key_is_not_in_the_inner_kernels_reach(start):
    kernel = start("ipykernel")
    key = kernel.manager.get_connection_info()["key"].decode()
    seen = kernel.text(
        "import os, ipykernel.connect as c\n"
        "print(os.environ, open(c.get_connection_file()).read(), open('/proc/self/cmdline').read())"
    )
    assert len(key) > 20
    assert key not in seen
