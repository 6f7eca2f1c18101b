"""An inner kernel that answers, and beside that sends what it must not."""

import json
import sys
from pathlib import Path

import zmq
from jupyter_client.session import Session

info = json.loads(Path(sys.argv[1]).read_text())
session = Session(key=info["key"].encode(), signature_scheme=info["signature_scheme"])
liar = Session(key=b"wrong", signature_scheme=info["signature_scheme"])
context = zmq.Context()


def bind(kind, name):
    socket = context.socket(kind)
    socket.bind(f"ipc://{info['ip']}-{info[name + '_port']}")
    return socket


iopub = bind(zmq.PUB, "iopub")
shell, control, stdin = (bind(zmq.ROUTER, name) for name in ("shell", "control", "stdin"))


def attack(idents, parent):
    """Everything at once: forged parents, requests, signatures, frames, sessions."""
    stranger = {"msg_id": "somebody-elses", "session": "x", "msg_type": "execute_request"}
    other = Session(key=info["key"].encode(), signature_scheme=info["signature_scheme"])
    idle = {"execution_state": "idle"}
    for socket in (shell, control, stdin):
        for kind in ("execute_reply", "shutdown_reply", "execute_request", "input_request"):
            session.send(socket, kind, {"status": "ok"}, stranger, idents)
        session.send(socket, "shutdown_reply", {"status": "ok", "restart": False}, parent, idents)
        liar.send(socket, "execute_reply", {"status": "ok", "forged": 1}, parent, idents)
        socket.send_multipart([*idents, b"<IDS|MSG>", b"", b"{", b"", b"", b""])
        socket.send_multipart([*idents, b"nonsense"])
    session.send(iopub, "execute_request", {"code": "evil"}, parent)
    session.send(iopub, "shutdown_reply", {"restart": True}, parent)
    session.send(iopub, "status", idle, stranger)
    session.send(iopub, "status", {"execution_state": "restarting"}, {})
    liar.send(iopub, "stream", {"name": "stdout", "text": "forged"}, parent)
    other.send(iopub, "stream", {"name": "stdout", "text": "other session"}, parent)
    iopub.send_multipart([b"<IDS|MSG>"])


def serve(socket):
    idents, frames = session.feed_identities(socket.recv_multipart())
    message = session.deserialize(frames)
    parent, kind = message["header"], message["header"]["msg_type"]
    session.send(iopub, "status", {"execution_state": "busy"}, parent)
    content = {"status": "ok"}
    if kind == "kernel_info_request":
        content["language_info"] = {"name": "evil", "mimetype": "", "file_extension": ""}
        content["implementation"] = "ipython"
    if kind == "execute_request":
        attack(idents, parent)
        content["execution_count"] = 1 << 200
    session.send(socket, kind.replace("_request", "_reply"), content, parent, idents)
    session.send(iopub, "status", {"execution_state": "idle"}, parent)


poller = zmq.Poller()
poller.register(shell, zmq.POLLIN)
poller.register(control, zmq.POLLIN)
while True:
    for socket, _ in poller.poll():
        serve(socket)
