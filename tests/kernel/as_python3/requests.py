"""Requests of every kind, and the fields of their replies."""

from __future__ import annotations

import os

import zmq
from jupyter_client.session import Session

from .client import is_of, normal, state
from .table import SHARED, shared

CODE = "import os\nos.pa"
REQUESTS = {
    "complete_request": {
        "an attribute": {"code": CODE, "cursor_pos": len(CODE)},
        "in the middle": {"code": "len(1)", "cursor_pos": 2},
        "behind wide letters": {"code": "'🐎'; impo", "cursor_pos": 9},
        "nothing": {"code": "nowhere.", "cursor_pos": 8},
        "a file": {"code": "open('of_the", "cursor_pos": 12},
        "a key": {"code": "d = {'key': 1}; d['", "cursor_pos": 19},
        "a magic": {"code": "%matplo", "cursor_pos": 7},
    },
    "inspect_request": {
        "a function": {"code": "of_the_folder.fail", "cursor_pos": 8, "detail_level": 0},
        "in detail": {"code": "of_the_folder.fail", "cursor_pos": 18, "detail_level": 1},
        "in a call": {"code": "len(", "cursor_pos": 4, "detail_level": 0},
        "nothing": {"code": "nowhere", "cursor_pos": 3, "detail_level": 0},
        "a magic": {"code": "%matplotlib", "cursor_pos": 5, "detail_level": 0},
    },
    "is_complete_request": {
        "complete": {"code": "1 + 1"},
        "incomplete": {"code": "if True:\n    x = 1"},
        "open": {"code": "print('''"},
        "invalid": {"code": "def ("},
        "a magic": {"code": "%time 1"},
        "a cell magic": {"code": "%%timeit\n1"},
        "empty": {"code": ""},
    },
    "history_request": {
        "tail": {"hist_access_type": "tail", "n": 3, "output": False, "raw": True},
        "tail with outputs": {"hist_access_type": "tail", "n": 2, "output": True, "raw": True},
        "range": {
            "hist_access_type": "range", "session": 0, "start": 1, "stop": 4,
            "raw": True, "output": False,
        },
        "range with outputs": {
            "hist_access_type": "range", "session": 0, "start": 1, "stop": 3,
            "raw": False, "output": True,
        },
        "search": {"hist_access_type": "search", "n": 2, "pattern": "6 ?7*", "raw": True,
                   "output": False, "unique": True},
        "search of nothing": {"hist_access_type": "search", "n": 2, "pattern": "no-such*",
                              "raw": True, "output": False},
        "of no known kind": {"hist_access_type": "odd", "raw": True, "output": False},
    },
    "comm_info_request": {"all": {}, "of a target": {"target_name": "none"}},
    "kernel_info_request": {"": {}},
}  # fmt: skip


def _add_request(kind, name, content):
    SHARED[f"{kind} {name}".strip()] = lambda client: _asked(client, kind, content)


def _asked(client, kind, content):
    told = client.ask(kind, content)
    for message in told["replies"]:
        _of_the_implementation(message["content"])
    return told


def _of_the_implementation(content):
    """We are not ipykernel, and say so; its banner follows ours, our protocol is a little newer."""
    for name in ("implementation", "implementation_version", "banner", "protocol_version"):
        if name in content:
            content[name] = "OWN"
    version = content.get("language_info", {}).get("version", "")
    if version:  # the image's Python is another build
        content["language_info"]["version"] = version.rpartition(".")[0]


for _kind, _contents in REQUESTS.items():
    for _name, _content in _contents.items():
        _add_request(_kind, _name, _content)


@shared
def kernel_info_on_control(client):
    told = client.ask("kernel_info_request", {}, channel="control")
    _of_the_implementation(told["replies"][0]["content"])
    return told


@shared
def connect_request_names_the_ports_one_is_connected_to(client):
    told = client.ask("connect_request", {})
    info = client.manager.get_connection_info()
    content = told["replies"][0]["content"]
    return {key: key == "status" or value == info[key] for key, value in content.items()}


@shared
def usage_has_the_fields(client):
    """The numbers are a container's; the processor's comes with the second look."""
    client.ask("usage_request", {}, channel="control")
    told = client.ask("usage_request", {}, channel="control")
    content = told["replies"][0]["content"]
    kinds = {key: type(content[key]).__name__ for key in sorted(content)}
    kinds["host_virtual_memory"] = {"total", "available", "percent", "used", "free"} <= set(
        content["host_virtual_memory"]
    )
    kinds.pop("host_cpu_percent", None)  # left out by ipykernel when it is nought
    kinds.pop("status", None)  # ipykernel has none here; the protocol wants one
    return kinds, [m["content"] for m in told["outputs"]]


@shared
def an_unknown_request_is_passed_over(client):
    found = []
    for channel in ("shell", "control"):
        msg_id = client.send("strange_request", {"k": 1}, channel=channel)
        client.idle(msg_id)
        found.append(client.told(msg_id, has_reply=False))
    return found, client.run("1")["replies"][0]["content"]["status"]


@shared
def debug_info_before_a_debugger(client):
    content = {"type": "request", "command": "debugInfo", "seq": 1, "arguments": {}}
    told = client.ask("debug_request", content, channel="control")
    body = told["replies"][0]["content"]["body"]
    prefix = body.pop("tmpFilePrefix")  # holds the process id
    return told, prefix.startswith("/tmp/ipykernel_")


@shared
def a_debugger_starts_and_stops(client):
    found = []
    for number, (command, arguments) in enumerate([
        ("initialize", {"clientID": "t", "adapterID": "", "pathFormat": "path",
                        "linesStartAt1": True, "columnsStartAt1": True}),
        ("attach", {}),
        ("dumpCell", {"code": "1 + 1"}),
        ("inspectVariables", {}),
        ("disconnect", {"restart": False, "terminateDebuggee": False}),
    ]):  # fmt: skip
        content = {"type": "request", "command": command, "seq": number, "arguments": arguments}
        told = client.ask("debug_request", content, channel="control")["replies"][0]["content"]
        body = told.get("body") or {}
        found.append([told["command"], told["success"], sorted(body)])
    return found


@shared
def control_is_served_while_a_cell_runs(client):
    cell = client.execute("import time; time.sleep(0.6)")
    client.wait(lambda m: is_of(m, cell) and m["msg_type"] == "execute_input")
    order = []
    for kind in ("kernel_info_request", "list_subshell_request"):
        msg_id = client.send(kind, {}, channel="control")
        client.idle(msg_id)
        order.append(client.reply(msg_id)["msg_type"])
    is_running = not any(state(m) == "idle" for m in client.of(cell))
    client.idle(cell)
    return order, is_running


@shared
def shell_requests_keep_their_order(client):
    asked = [
        client.execute("import time; time.sleep(0.3); kept = 1"),
        client.send("complete_request", {"code": "kep", "cursor_pos": 3}),
        client.execute("kept"),
        client.send("history_request", {"hist_access_type": "tail", "n": 1, "raw": True,
                                        "output": False}),
    ]  # fmt: skip
    told = [client.told(msg_id) for msg_id in asked]
    order = [m["parent_header"]["msg_id"] for m in client.inbox if m["channel"] == "shell"]
    return told, [asked.index(one) for one in order if one in asked]


@shared
def a_new_subscriber_is_welcomed(client):
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.subscribe(b"a topic of its own")
        socket.connect(client.client._make_url("iopub"))
        if not socket.poll(3000):
            return None
        session = Session(key=client.session.key)  # the other subscription has seen it too
        topic, message = session.recv(socket, mode=0)
        header = sorted(message["header"])
        return [normal(topic), message["msg_type"], message["content"], header,
                message["parent_header"]]  # fmt: skip


@shared
def the_heartbeat_echoes(client):
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(client.client._make_url("hb"))
        word = os.urandom(8)
        socket.send(word)
        return bool(socket.poll(3000)) and socket.recv() == word


@shared
def all_messages_are_of_one_session(client):
    return len({m["header"]["session"] for m in client.inbox[-200:]})


@shared
def a_parent_header_is_the_whole_header(client):
    header = {"subshell_id": None, "strange": [1]}
    msg_id = client.execute("print(1)", header=header, metadata={"cellId": "c-1"})
    client.told(msg_id)
    return [m["parent_header"].get("strange") for m in client.of(msg_id)]
