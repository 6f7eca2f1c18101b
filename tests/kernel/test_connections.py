"""``%net``, ``%mount``, ``%publish`` and the flags of that name, in a real kernel."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from container_kernel.runtime import pasta
from tests.kernel.conftest import until
from tests.kernel.processes import all_processes
from tests.kernel.test_real import RealKernel

pytestmark = pytest.mark.privileged
SERVE = "mkdir -p /tmp/w; echo found > /tmp/w/a; httpd -f -p 127.0.0.1:9091 -h /tmp/w"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def kernel(folder, tmp_path_factory, oci_runtime):
    kernel = RealKernel(folder, tmp_path_factory.mktemp("home"), oci_runtime)
    assert kernel.run("%base busybox")[0]["status"] == "ok"
    yield kernel
    kernel.close()


def failure(kernel, code):
    reply, _ = kernel.run(code)
    assert reply["status"] == "error", code
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(reply["traceback"]))


def fetched(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return answer.read().decode()
    return None


def test_a_mount_appears_in_the_session_which_goes_on(kernel, folder):
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/a").write_text("one\n")
    kernel.run("x=kept")
    assert "data at /data, read only" in kernel.text("%mount data /data")
    assert kernel.text("cat /data/a; echo $x") == "one\nkept\n"
    assert kernel.run("echo > /data/b")[0]["status"] == "error"
    assert kernel.text("%%run --mount data:/d:rw\necho two > /d/b") == ""
    assert kernel.text("cat /data/b") == "two\n"
    assert "nothing is mounted" not in kernel.text("%mount")
    kernel.run("%unmount /data")
    assert kernel.text("ls /data; echo $x") == "kept\n"


def test_a_mount_stays_when_a_layer_slides_under_the_session(kernel, folder):
    kernel.run("y=kept")
    kernel.run("%mount volume:models /models --rw")
    kernel.run("echo model > /models/m")
    kernel.run("%%build\necho layer > /layer")
    assert kernel.text("cat /layer /models/m; echo $y") == "layer\nmodel\nkept\n"
    assert kernel.text("%%run --mount volume:models:/m\ncat /m/m") == "model\n"
    assert "'models' is in use" in failure(kernel, "%volume rm models")
    kernel.run("%unmount /models")
    assert "models" in kernel.text("%volume list")


def test_mounts_that_cannot_be_say_why(kernel, folder):
    kernel.run("ln -sf /etc /work/link")
    assert "'link' cannot be mounted" in failure(kernel, "%mount link /data2")
    assert "'/proc' is not mounted" in failure(kernel, "%mount /proc /data2")
    assert "a target outside" in failure(kernel, "%mount data /proc/x")
    assert "no volume 'nothing'" in failure(kernel, "%volume rm nothing")
    assert "nothing is mounted at /nowhere" in failure(kernel, "%unmount /nowhere")
    assert kernel.text("ls -d /data2 2>/dev/null || echo none") == "none\n"


def test_a_tmpfs_has_its_size(kernel):
    said = kernel.text("%%run --tmpfs /fast:1m\ndf -k /fast | tail -1")
    assert "1024" in said


def test_a_port_of_the_session_is_on_the_host_and_goes_along(kernel):
    said = kernel.text("%publish 0:9091")
    url = re.search(r"http://\S+", said)[0]
    kernel.run(f"({SERVE}) >/dev/null 2>&1 &")
    until(lambda: fetched(f"{url}a") == "found\n")
    assert "9091" in kernel.text("%publish")
    assert "no port is published" in kernel.text("%publish 9091 --stop")
    assert fetched(url) is None


def test_a_port_in_use_is_named_with_the_next_step(kernel):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for code in (f"%publish {port}", f"%%run --publish {port} true"):
            said = failure(kernel, code)
            assert f"port {port} of this host is in use" in said
            assert "hint: publish it as another" in said


def test_a_fresh_container_says_where_its_port_is(kernel):
    kernel.client.execute(f"%%run --publish 0:9091 --timeout 20s\n{SERVE}")
    url = None
    while url is None:
        message = kernel.client.get_iopub_msg(timeout=20)
        url = re.search(r"http://\S+", str(message["content"].get("text", "")))
    until(lambda: fetched(f"{url[0]}a") == "found\n")
    kernel.manager.interrupt_kernel()
    kernel.client.get_shell_msg(timeout=20)
    until(lambda: fetched(url[0]) is None)


def test_an_unknown_network_says_which_there_are(kernel):
    for code in ("%net pyhton", "%%run --net pyhton true", "%%build --net pyhton\ntrue"):
        said = failure(kernel, code)
        assert "no network 'pyhton': there are none, host, pasta, apt, npm, python" in said
        assert "hint: " in said


def test_another_network_is_for_a_new_session_which_is_said(kernel):
    kernel.run("z=lost")
    assert "network: example.org:443" in kernel.text("%net example.org:443")
    said = kernel.text("echo $http_proxy [$z]")
    assert "new session, without earlier variables: its network is example.org:443 now" in said
    assert "http://127.0.0.1:3128 []" in said
    assert "403" in kernel.text("wget -O - http://10.99.0.1/ 2>&1")
    kernel.run("%net none")
    assert kernel.text("echo [$http_proxy]").endswith("[]\n")
    kernel.run("u=kept")
    kernel.run("%net none")
    assert kernel.text("echo $u") == "kept\n"


def test_the_hosts_network_comes_with_a_warning(kernel):
    said = kernel.text("%%run --net host\nls -d /sys/class 2>/dev/null || echo no sysfs")
    assert "shares this host's network" in said
    assert "no sysfs" in said
    assert "shares this host's network" in kernel.text("%net host")
    kernel.run("%net none")


def test_nothing_that_carries_is_left_when_all_is_killed(folder, tmp_path, oci_runtime):
    kernel = RealKernel(folder, tmp_path, oci_runtime)
    before = set(all_processes())
    assert kernel.run("%base busybox")[0]["status"] == "ok"
    kernel.run("%net example.org")
    kernel.run("%publish 0:9092")
    kernel.run("true")
    if pasta.why_not() is None:
        kernel.run("%%build\necho with pasta")
    carriers = [pid for pid in all_processes() if _carries(pid) and pid not in before]
    assert len(carriers) >= 2
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in carriers), 10)
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def _carries(pid):
    with contextlib.suppress(OSError):
        said = Path(f"/proc/{pid}/cmdline").read_text()
        return any(one in said for one in ("pasta", "runtime.proxy", "runtime.publish"))
    return False
