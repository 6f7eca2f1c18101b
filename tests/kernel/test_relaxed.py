"""Row 118: what weakens isolation is named for what it does, and told where its output is kept."""

from __future__ import annotations

import pytest

from tests.kernel.test_real import RealKernel

pytestmark = pytest.mark.privileged


@pytest.fixture
def kernel(tmp_path, home, oci_runtime):
    kernel = RealKernel(tmp_path, home, oci_runtime)
    assert kernel.run("%base busybox")[0]["status"] == "ok"
    yield kernel
    kernel.close()


def warnings(outputs):
    """The warnings among outputs, with what their metadata says."""
    return [
        (one["content"]["data"]["text/plain"], one["content"]["metadata"]["container_kernel"])
        for one in outputs
        if one["msg_type"] == "display_data" and "Warning" in one["content"]["data"]["text/plain"]
    ]


def printed(outputs):
    return "".join(one["content"].get("text", "") for one in outputs)


def mask(outputs, name):
    line = next(line for line in printed(outputs).splitlines() if line.startswith(name))
    return line.split()[1]


STATUS = "grep -E 'Cap|Seccomp:' /proc/self/status"
NET_RAW = 1 << 13


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--as-root", ["as-root"]),
        ("--add-cap net_raw", ["add-cap NET_RAW"]),
        ("--no-seccomp", ["no-seccomp"]),
        ("--as-root --add-cap CAP_NET_RAW", ["as-root", "add-cap NET_RAW"]),
    ],
)
def test_row_118_run_warns_of_what_it_was_asked_for(kernel, flags, words):
    reply, outputs = kernel.run(f"%%run {flags}\n{STATUS}")
    assert reply["status"] == "ok"
    ((text, metadata),) = warnings(outputs)
    assert metadata == {"relaxed": words}
    assert all(f"({word})" in text for word in words)
    has_cap = "add-cap NET_RAW" in words
    assert bool(int(mask(outputs, "CapEff"), 16) & NET_RAW) == has_cap
    assert mask(outputs, "Seccomp") == ("0" if "no-seccomp" in words else "2")


def test_nothing_is_said_of_a_usual_container(kernel):
    for code in ("true", f"%%run\n{STATUS}"):
        reply, outputs = kernel.run(code)
        assert (reply["status"], warnings(outputs)) == ("ok", [])


@pytest.mark.parametrize("name", ["CAP_", "EVERYTHING", "''", "NET_RAW,SYS_ADMIN"])
def test_a_capability_that_there_is_not_is_an_error(kernel, name):
    reply, _ = kernel.run(f"%%run --add-cap {name}\ntrue")
    assert (reply["status"], reply["ename"]) == ("error", "BadArguments")


def test_row_118_a_session_that_settings_weaken_says_so_once_each_time_it_starts(
    tmp_path, home, oci_runtime, monkeypatch
):
    lines = ["c.ContainerKernel.add_cap = ['NET_RAW']", "c.ContainerKernel.no_seccomp = True"]
    (tmp_path / "container_kernel_config.py").write_text("\n".join(lines))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    kernel = RealKernel(tmp_path, home, oci_runtime)
    try:
        kernel.run("%base busybox")
        _, first = kernel.run(STATUS)
        _, second = kernel.run("true")
        ((_, metadata),) = warnings(first)
        assert metadata == {"relaxed": ["add-cap NET_RAW", "no-seccomp"]}
        assert int(mask(first, "CapEff"), 16) == NET_RAW
        assert mask(first, "Seccomp") == "0"
        assert warnings(second) == []
        assert len(warnings(kernel.run("%%run\ntrue")[1])) == 1
        kernel.manager.restart_kernel()
        kernel.client.wait_for_ready(timeout=30)
        kernel.run("%base busybox")
        assert len(warnings(kernel.run("true")[1])) == 1
    finally:
        kernel.close()
