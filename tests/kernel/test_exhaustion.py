"""What a cell uses up ends in an error that names it, in the image's own kernel and in the agent.

The kernel lives on, or another one is there for the next cell; an interrupt is heard at once.
"""

from __future__ import annotations

import time

import pytest

from container_kernel.runtime.host import Host
from tests.kernel.test_limits import failure
from tests.kernel.test_sending import Default, build

pytestmark = pytest.mark.privileged
LIMITS = "%limits --restart --memory 300m --pids 60 --files 200 --shm 4m --scratch 16m"

PIDS = """
import subprocess
running = []
try:
    while True: running.append(subprocess.Popen(["sleep", "20"]))
finally:
    for one in running: one.kill(); one.wait()
"""
MEMORY = "held = bytearray(900_000_000)"
FILES = "held = [open('/dev/null') for _ in range(300)]"
SCRATCH = "open('/tmp/fill', 'wb').write(bytes(20_000_000))"
SHM = "open('/dev/shm/fill', 'wb').write(bytes(8_000_000))"
MANY = "import os\nfor number in range(10**6): os.symlink('x', f'/tmp/link{number}')"


@pytest.fixture(scope="module", params=["agent", "ipykernel"])
def kernel(request, tmp_path_factory):
    kernel = Default(tmp_path_factory.mktemp("notebook"))
    cells = ["%base debian:bookworm", "%apt python3"]
    build(kernel, *cells, *(["%pip ipykernel matplotlib"] * (request.param == "ipykernel")))
    reply, _ = kernel.run(LIMITS)
    assert reply["status"] == "ok", reply
    kernel.run("pass")
    yield kernel
    kernel.close()


@pytest.fixture
def has_cgroup(entered):
    return Host.open(entered).runtime.cgroup is not None


def test_processes(kernel):
    said = failure(kernel, PIDS)
    assert "the limit of 60 processes was reached" in said
    assert "%limits --pids 120" in said
    assert kernel.text("print(6 * 7)") == "42\n"


def test_memory(kernel, has_cgroup):
    said = failure(kernel, MEMORY)
    assert "the limit of 300 MiB" in said
    assert "%limits --memory 600m" in said
    assert ("MemoryError" in said) is not has_cgroup
    assert ("(peak 300 MiB)" in said) is has_cgroup
    assert kernel.text("print(6 * 7)") == "42\n"


def test_memory_of_a_child_process(kernel, has_cgroup):
    if not has_cgroup:
        pytest.skip("no cgroup here: each process is held alone, and the child sees it itself")
    kernel.run("kept = 5")
    code = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', %r], check=True)"
    said = failure(kernel, code % MEMORY)
    assert "the limit of 300 MiB of memory was reached" in said
    assert kernel.text("print(kept)") == "5\n"


def test_open_files(kernel):
    said = failure(kernel, FILES)
    assert "the limit of 200 open files was reached" in said
    assert "%limits --files 400" in said
    assert kernel.text("print(6 * 7)") == "42\n"


@pytest.mark.parametrize("code", [SCRATCH, MANY])
def test_scratch(kernel, code):
    said = failure(kernel, code)
    assert "the limit of 16 MiB of scratch was reached" in said
    assert "%limits --scratch 32m" in said
    assert kernel.run("%%sh\nrm -f /tmp/fill; find /tmp -name 'link*' -delete")[0]["status"] == "ok"
    assert kernel.text("open('/tmp/some', 'w').write('x'); print(1)").endswith("1\n")


def test_shared_memory(kernel):
    said = failure(kernel, SHM)
    assert "the limit of 4 MiB of /dev/shm was reached" in said
    assert "%limits --shm 8m" in said
    kernel.run("import os; os.remove('/dev/shm/fill')")
    assert kernel.text("print(6 * 7)") == "42\n"


def test_another_error_is_blamed_on_no_limit(kernel):
    kernel.run(f"try:\n    {FILES}\nexcept OSError: pass\nheld = None")
    assert "was reached" not in failure(kernel, "1 / 0")


def test_an_interrupt_is_heard_while_every_processor_is_busy(kernel):
    kernel.run(
        "import subprocess, sys\n"
        "hogs = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(4)]"
    )
    msg_id = kernel.client.execute("while True: pass")
    time.sleep(0.5)
    begun = time.monotonic()
    kernel.ask_control("interrupt_request")
    assert kernel.reply_to(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    took = time.monotonic() - begun
    kernel.run("for one in hogs: one.kill(); one.wait()")
    assert took < 1


def test_a_signal_queue_a_message_queue_and_a_keyring_are_not_the_hosts(kernel):
    code = (
        "import ctypes, resource\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "timers = 0\n"
        "handle = ctypes.c_void_p()\n"
        "while timers < 20000 and libc.timer_create(1, None, ctypes.byref(handle)) == 0:\n"
        "    timers += 1\n"
        "key = libc.syscall(248, b'user', b'x', b'y', 1, -3)\n"  # add_key(2)
        "print(timers < 9000, key)\n"
    )
    assert kernel.text(code).split() == ["True", "-1"]
    assert kernel.text("print(6 * 7)") == "42\n"
