"""Carrier: a process of ours that carries connections between network namespaces.

Each is a small Python program that gets its sockets as inherited descriptors and its orders as
JSON on its standard input, gives up its rights, and is gone with whoever started it: it is in our
process namespace, which ends with us.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from .. import syscalls

# It gets our module search path instead of making its own: faster, and the same code.
_START = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module(sys.argv[2]).main()"
)
_NO_NEW_PRIVS = 38
_NOBODY = 65534
_CHUNK = 1 << 16
MOST_CONNECTIONS = 256


def start(
    module: str, orders: dict[str, Any], sockets: Sequence[socket.socket]
) -> subprocess.Popen[str]:
    """Start the program ``module``; what it has to tell comes from its ``stdout``."""
    fds = [one.fileno() for one in sockets]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _START, json.dumps(sys.path), module],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        pass_fds=fds, cwd="/", env={}, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    json.dump({**orders, "fds": fds}, process.stdin)
    process.stdin.close()
    return process


def end(process: subprocess.Popen[str]) -> None:
    """End it, now."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


# ---------------------------------------------------------------- inside the process


def orders() -> dict[str, Any]:
    """What this process is to do. It has no rights but to carry from here on."""
    import encodings.idna  # noqa: F401  # looked up by name later, when we can read no file of ours

    given: dict[str, Any] = json.load(sys.stdin)
    syscalls.prctl(_NO_NEW_PRIVS, 1)
    with suppress(OSError):  # with a single id mapped there is nobody else to be
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    return given


def serve(listening: socket.socket, handle: Callable[[socket.socket], None]) -> NoReturn:
    """Give each connection a thread, and no more than so many at once."""
    free = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def run(client: socket.socket) -> None:
        try:
            with client, suppress(OSError):
                handle(client)
        finally:
            free.release()

    while True:
        free.acquire()
        client, _ = listening.accept()
        threading.Thread(target=run, args=(client,), daemon=True).start()


def join(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both sides have said all."""
    for either in (one, other):
        either.settimeout(None)
    back = threading.Thread(target=_carry, args=(other, one), daemon=True)
    back.start()
    _carry(one, other)
    back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for either in (source, target):
            with suppress(OSError):
                either.shutdown(socket.SHUT_RDWR)
