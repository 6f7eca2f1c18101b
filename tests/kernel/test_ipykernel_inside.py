"""What only a kernel like ipykernel has, through the relay: on a plain process, and in an image."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import TIMEOUT_S, types, until
from tests.kernel.test_sending import Default, build

BLOCKING = "import time; time.sleep(1.5)"


@pytest.fixture(scope="module")
def in_image(tmp_path_factory):
    """The image's own kernel, on the default store, where other tests have built the same."""
    kernel = Default(tmp_path_factory.mktemp("notebook"))
    build(kernel, "%base debian:bookworm", "%apt python3", "%pip ipykernel matplotlib", "1")
    yield kernel
    kernel.close()


@pytest.fixture(params=["process", pytest.param("image", marks=pytest.mark.privileged)])
def kernel(request, start):
    found = (
        start("ipykernel") if request.param == "process" else request.getfixturevalue("in_image")
    )
    found.run("pass")
    return found


class Debugger:
    """A front end's debugger: speaks DAP through debug_request."""

    def __init__(self, kernel):
        self.kernel = kernel
        self._number = 0

    def ask(self, command, arguments=None):
        self._number += 1
        content = {"type": "request", "command": command, "seq": self._number}
        content["arguments"] = arguments or {}
        reply = self.kernel.ask_control("debug_request", content)["content"]
        assert reply.get("success", True), reply
        return reply.get("body") or {}

    def start(self):
        arguments = {"clientID": "test", "adapterID": "python", "pathFormat": "path"}
        arguments |= {"linesStartAt1": True, "columnsStartAt1": True}
        self.ask("initialize", arguments)
        self.ask("attach")

    def event(self, name):
        while True:
            message = self.kernel.client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["msg_type"] == "debug_event" and message["content"]["event"] == name:
                return message["content"]["body"]


def test_a_breakpoint_stops_shows_variables_and_lets_go(kernel):
    info = kernel.ask_control("kernel_info_request")["content"]
    assert "debugger" in info["supported_features"]
    debugger = Debugger(kernel)
    assert debugger.ask("debugInfo")["isStarted"] is False
    debugger.start()
    code = "def twice(x):\n    y = 2 * x\n    return y\n\ntotal = twice(21)"
    place = debugger.ask("dumpCell", {"code": code})["sourcePath"]
    points = {"source": {"path": place}, "breakpoints": [{"line": 3}], "sourceModified": False}
    assert debugger.ask("setBreakpoints", points)["breakpoints"][0]["verified"]
    debugger.ask("configurationDone")
    info = debugger.ask("debugInfo")
    assert info["isStarted"]
    assert place.startswith(info["tmpFilePrefix"])
    msg_id = kernel.client.execute(code)
    thread = debugger.event("stopped")["threadId"]
    frame = debugger.ask("stackTrace", {"threadId": thread})["stackFrames"][0]
    assert (frame["name"], frame["line"]) == ("twice", 3)
    scope = debugger.ask("scopes", {"frameId": frame["id"]})["scopes"][0]["variablesReference"]
    found = debugger.ask("variables", {"variablesReference": scope})["variables"]
    assert {"x": "21", "y": "42"}.items() <= {v["name"]: v["value"] for v in found}.items()
    rich = debugger.ask("richInspectVariables", {"variableName": "y", "frameId": frame["id"]})
    assert rich["data"]["text/plain"] == "42"
    debugger.ask("continue", {"threadId": thread})
    reply = kernel.reply_to(msg_id)["content"]
    assert reply["status"] == "ok"
    names = {v["name"] for v in debugger.ask("inspectVariables")["variables"]}
    assert "total" in names
    debugger.ask("disconnect", {"restart": False, "terminateDebuggee": False})
    assert debugger.ask("debugInfo")["isStarted"] is False


def subshell_request(kernel, subshell, msg_type, content):
    """Send a shell request to a subshell; its msg_id."""
    message = kernel.client.session.msg(msg_type, content)
    message["header"]["subshell_id"] = subshell
    kernel.client.shell_channel.send(message)
    return message["header"]["msg_id"]


def test_a_subshell_answers_while_the_main_shell_is_busy(kernel):
    features = kernel.ask_control("kernel_info_request")["content"]["supported_features"]
    assert "kernel subshells" in features
    subshell = kernel.ask_control("create_subshell_request")["content"]["subshell_id"]
    assert kernel.ask_control("list_subshell_request")["content"]["subshell_id"] == [subshell]
    first = kernel.client.execute(f"began = 1; {BLOCKING}")
    until(lambda: kernel.client.get_iopub_msg(timeout=TIMEOUT_S)["msg_type"] == "execute_input")
    second = subshell_request(kernel, subshell, "execute_request", {"code": "print(began)"})
    replies = [kernel.client.get_shell_msg(timeout=TIMEOUT_S) for _ in range(2)]
    assert [r["parent_header"]["msg_id"] for r in replies] == [second, first]
    assert replies[0]["parent_header"]["subshell_id"] == subshell
    assert [r["content"]["status"] for r in replies] == ["ok", "ok"]
    assert kernel.ask_control("delete_subshell_request", {"subshell_id": subshell})
    assert kernel.ask_control("list_subshell_request")["content"]["subshell_id"] == []
    # Its cell took a number, which is not used again.
    last = replies[0]["content"]["execution_count"]
    assert kernel.run("pass")[0]["execution_count"] > last


def test_a_subshell_that_is_not_there_is_an_error(kernel):
    reply = kernel.ask_control("delete_subshell_request", {"subshell_id": "none"})["content"]
    assert reply["status"] == "error"


def test_a_display_is_changed_and_cleared(kernel):
    code = (
        "from IPython.display import clear_output\n"
        "h = display('one', display_id='d')\nh.update('two')\n"
        "clear_output(wait=True)\nprint('last')"
    )
    _, outputs = kernel.run(code)
    assert types(outputs)[2:-1] == ["display_data", "update_display_data", "clear_output", "stream"]
    assert outputs[3]["content"]["transient"] == {"display_id": "d"}
    assert outputs[4]["content"] == {"wait": True}


def test_usage_is_the_containers(kernel):
    before = kernel.ask_control("usage_request")["content"]
    kernel.run(
        "kept = bytearray(60_000_000)\nimport time; t = time.time()\n"
        "while time.time() < t + 0.5: pass"
    )
    after = kernel.ask_control("usage_request")["content"]
    assert after["kernel_memory"] - before["kernel_memory"] > 50_000_000
    assert after["kernel_cpu"] > 5
    assert after["cpu_count"] >= 1
    memory = after["host_virtual_memory"]
    assert memory["used"] + memory["available"] == memory["total"]
    kernel.run("del kept")


def test_payloads_reach_the_front_end(kernel):
    reply, _ = kernel.run("zip?")
    assert [one["source"] for one in reply["payload"]] == ["page"]


def test_widgets_carry_their_buffers(start):
    kernel = start("ipykernel")
    kernel.run("pass")
    _, outputs = kernel.run("import ipywidgets; w = ipywidgets.Image(value=b'\\0\\1\\xff'); w")
    opened = [m for m in outputs if m["msg_type"] == "comm_open" and m["buffers"]]
    assert [bytes(b) for b in opened[0]["buffers"]] == [b"\0\1\xff"]
    assert opened[0]["metadata"]["version"].startswith("2")
    shown = next(m for m in outputs if "display_data" in m["msg_type"] or "result" in m["msg_type"])
    view = shown["content"]["data"]["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == opened[0]["content"]["comm_id"]
    session, channel = kernel.client.session, kernel.client.shell_channel
    data = {"method": "update", "state": {}, "buffer_paths": [["value"]]}
    message = session.msg("comm_msg", {"comm_id": view["model_id"], "data": data})
    session.send(channel.socket, message, buffers=[b"new\0"])
    assert "b'new\\x00'" in kernel.text("print(bytes(w.value))")


def test_a_request_that_makes_the_inner_kernel_stumble_holds_up_nobody(kernel):
    content = {"code": "1", "silent": False, "user_expressions": 3, "stop_on_error": True}
    message = kernel.client.session.msg("execute_request", content)
    kernel.client.shell_channel.send(message)
    behind = kernel.client.execute("1")
    assert kernel.reply_to(message["header"]["msg_id"])["content"]["status"] == "error"
    assert kernel.reply_to(behind)["content"]["status"] == "aborted"
    assert kernel.run("1")[0]["status"] == "ok"


def test_a_cell_sent_with_another_has_all_the_time_it_needs(kernel):
    first = kernel.client.execute("1")
    second = kernel.client.execute(BLOCKING)
    assert [kernel.reply_to(one)["content"]["status"] for one in (first, second)] == ["ok", "ok"]
