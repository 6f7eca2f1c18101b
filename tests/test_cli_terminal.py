"""``container-kernel shell`` and progress, on a real pseudo-terminal."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time

import pytest

DEADLINE_S = 60


class Screen:
    """A process on a terminal of 30 lines and 90 columns."""

    def __init__(self, words, env, cwd):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            size = struct.pack("HHHH", 30, 90, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            os.chdir(cwd)
            argv = [sys.executable, "-m", "container_kernel", *words]
            os.execve(argv[0], argv, {**env, "TERM": "xterm"})

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, pattern, *, meanwhile=""):
        deadline = time.monotonic() + DEADLINE_S
        last = 0.0
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            if time.monotonic() - last > 0.2:  # busybox does not stand being hammered with ^C
                last = time.monotonic()
                self.type(meanwhile)
            if not self._read():
                break
        assert re.search(pattern, self.text), self.text

    def exit_code(self):
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self):
        if not select.select([self.fd], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def start(settings, tmp_path):
    screens = []

    def start(*words):
        screens.append(Screen(words, dict(settings.environ), tmp_path))
        return screens[-1]

    yield start
    for screen in screens:
        os.close(screen.fd)


@pytest.mark.privileged
def test_a_shell_has_the_size_of_the_terminal_and_its_exit_code(start):
    screen = start("shell", "--image", "busybox")
    screen.wait_for(r"/work \$ ")
    screen.type("stty size; echo $((6 * 7))-$TERM\n")
    screen.wait_for("30 90")
    screen.wait_for("42-xterm")
    screen.type("exit 5\n")
    assert screen.exit_code() == 5


@pytest.mark.privileged
def test_ctrl_c_ends_the_command_and_not_the_shell(start):
    screen = start("shell", "--image", "busybox")
    screen.wait_for(r"/work \$ ")
    screen.type("echo slee''ping; sleep 600\n")
    screen.wait_for("sleeping")
    # Until sleep is in the foreground the shell gets it, and ignores it.
    screen.wait_for(r"\^C\s+/work \$ ", meanwhile="\x03")
    screen.type("exit 5\n")
    assert screen.exit_code() == 5


@pytest.mark.privileged
def test_the_container_does_not_get_the_users_own_terminal(start):
    screen = start("shell", "--image", "busybox", "--", "sh", "-c", "readlink /proc/self/fd/0")
    assert screen.exit_code() == 0
    assert os.ttyname(screen.fd) not in screen.text.split()


@pytest.mark.privileged
def test_a_build_has_one_live_line_on_a_terminal(start, tmp_path):
    source = "%%build --name slow\nfor n in 1 2 3 4; do echo line-$n; sleep 0.15; done; date > /x"
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**cell, "source": "%base busybox"}, {**cell, "id": "b", "source": source}]
    document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    (tmp_path / "a.ipynb").write_text(json.dumps(document))
    screen = start("build", "--no-cache", "a.ipynb")
    assert screen.exit_code() == 0
    assert "░" in screen.text
    lines = [line.rpartition("\x1b[K")[2] for line in screen.text.split("\n")]
    assert sum("slow" in line for line in lines) == 1
