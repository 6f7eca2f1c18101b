"""An inner kernel that swallows a request, leaves one unanswered, or waits for many others."""

import json
import signal
import sys
from pathlib import Path

import zmq
from jupyter_client.session import Session

FLOOD = 10_001


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    info = json.loads(Path(sys.argv[1]).read_text())
    session = Session(key=info["key"].encode(), signature_scheme=info["signature_scheme"])
    context = zmq.Context()

    def bind(kind, name):
        socket = context.socket(kind)
        socket.set_hwm(0)
        socket.bind(f"ipc://{info['ip']}-{info[name + '_port']}")
        return socket

    iopub, shell = bind(zmq.PUB, "iopub"), bind(zmq.ROUTER, "shell")
    others = [bind(zmq.ROUTER, name) for name in ("control", "stdin")]
    while others:
        idents, frames = session.feed_identities(shell.recv_multipart())
        message = session.deserialize(frames)
        parent, kind = message["header"], message["header"]["msg_type"]
        code = message["content"].get("code")
        if code == "swallow":
            continue
        session.send(iopub, "status", {"execution_state": "busy"}, parent)
        for _ in range(FLOOD if code == "wait" else 0):
            shell.recv_multipart()
        if kind.endswith("_request") and code != "forget":
            reply = {"status": "ok", "execution_count": 1}
            session.send(shell, kind.replace("_request", "_reply"), reply, parent, idents)
        session.send(iopub, "status", {"execution_state": "idle"}, parent)


if __name__ == "__main__":
    main()
