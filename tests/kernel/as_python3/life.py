"""Starting, restarting, ending: what a kernel manager sees."""

from __future__ import annotations

import time
from contextlib import contextmanager

from jupyter_client.manager import KernelManager

from .client import Client, state
from .table import own


@contextmanager
def kernel(folder, **options):
    """A new kernel called python3 and a client of it."""
    manager = KernelManager(kernel_name="python3", **options)
    manager.start_kernel(cwd=str(folder))
    client = Client(manager, folder)
    try:
        yield client
    finally:
        client.close()
        if manager.has_kernel:
            manager.shutdown_kernel(now=not manager.is_alive())


AT_EXIT = "import atexit, time\natexit.register(lambda: open('{}', 'w').write('ran'))"


@own
def the_first_reply_tells_the_language(folder):
    """Front ends ask once, when they connect, be the kernel up by then or not."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    client.start_channels()
    client.kernel_info()
    info = client.get_shell_msg(timeout=30)["content"]
    client.stop_channels()
    manager.shutdown_kernel()
    version = info["language_info"].pop("version")
    return info["language_info"], version.count("."), sorted(info["supported_features"])


@own
def a_shutdown_runs_exit_handlers(folder):
    with kernel(folder) as client:
        client.run(AT_EXIT.format("at-shutdown"))
        client.manager.shutdown_kernel()
        is_alive = client.manager.has_kernel
    return (folder / "at-shutdown").read_text(), is_alive


@own
def a_shutdown_request_is_answered(folder):
    found = []
    for channel in ("control", "shell"):
        with kernel(folder) as client:
            msg_id = client.send("shutdown_request", {"restart": False}, channel=channel)
            reply = client.reply(msg_id)
            deadline = time.monotonic() + 10
            while client.manager.is_alive() and time.monotonic() < deadline:
                time.sleep(0.02)
            found.append([reply["msg_type"], reply["content"], client.manager.is_alive()])
            if client.manager.is_alive():
                client.manager.shutdown_kernel(now=True)
    return found


@own
def a_restart_forgets_and_keeps_the_connection(folder):
    with kernel(folder) as client:
        client.run("kept = 1;" + AT_EXIT.format("at-restart"))
        sessions = {client.inbox[-1]["header"]["session"]}
        before = client.manager.get_connection_info()
        client.manager.restart_kernel()
        same = before == client.manager.get_connection_info()
        client.close()
        client.inbox.clear()
        client.connect()
        told = client.run("kept")
        sessions.add(client.inbox[-1]["header"]["session"])
    return told, same, len(sessions), (folder / "at-restart").read_text()


@own
def a_restart_now_forgets_too(folder):
    with kernel(folder) as client:
        client.run("kept = 1")
        client.manager.restart_kernel(now=True)
        client.close()
        client.inbox.clear()
        client.connect()
        return client.run("kept")["replies"][0]["content"]["ename"]


@own
def children_end_with_the_kernel(folder):
    with kernel(folder) as client:
        client.run("import subprocess; p = subprocess.Popen('sleep 1; echo x > alive', shell=True)")
    time.sleep(1.3)
    return (folder / "alive").exists()


@own
def a_shutdown_ends_a_busy_kernel(folder):
    with kernel(folder) as client:
        client.execute("while True: pass")
        client.wait(lambda m: state(m) == "busy")
        start = time.monotonic()
        client.manager.shutdown_kernel()
        return time.monotonic() - start < 10, client.manager.has_kernel


@own
def a_kill_is_seen(folder):
    with kernel(folder) as client:
        client.manager.shutdown_kernel(now=True)
        return client.manager.has_kernel


@own
def sockets_of_files_do_as_well(folder):
    with kernel(folder, transport="ipc", ip=str(folder / "socket")) as client:
        return client.run("print(1)")


def _is_alive_behind(folder, code):
    with kernel(folder) as client:
        client.execute(code)
        deadline = time.monotonic() + 2
        while client.manager.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        return client.manager.is_alive()


@own
def env_is_set(folder):
    with kernel(folder) as client:
        return client.run("%env NEW=1")


@own
def pip_is_pip(folder):
    with kernel(folder) as client:
        return client.run("%pip --version")["replies"][0]["content"]["status"]


@own
def a_death_ends_the_kernel(folder):
    return _is_alive_behind(folder, "import os; os._exit(9)")


@own
def quit_ends_the_kernel(folder):
    return _is_alive_behind(folder, "quit")
