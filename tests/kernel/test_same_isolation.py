"""Row 117: a session is as isolated after an exec, an interrupt, a restart or a new layer as it
was before, and nothing of another notebook is in it.
"""

from __future__ import annotations

import os
import shutil

import pytest

from tests.kernel.conftest import until
from tests.kernel.test_real import RealKernel
from tests.runtime import facts

pytestmark = pytest.mark.privileged
CANARY = "canary-of-another-notebook"


@pytest.fixture
def kernel(tmp_path, home, oci_runtime, probe):
    shutil.copy(probe, tmp_path / "probe")
    kernel = RealKernel(tmp_path, home, oci_runtime)
    prepare(kernel)
    yield kernel
    kernel.close()


def prepare(kernel):
    """An image with the probe in it."""
    kernel.run("%base busybox")
    kernel.run("%copy probe /probe")
    setuid = "cp /probe /setuid-probe\nchmod 4755 /setuid-probe"
    assert kernel.run(f"%%build --net none\n{setuid}")[0]["status"] == "ok"


def found(kernel, magic=""):
    """What must be the same wherever it is asked."""
    reply, outputs = kernel.run(magic + facts.script(quick=True))
    text = "".join(one["content"].get("text", "") for one in outputs)
    assert reply["status"] == "ok", (reply, text[-500:])
    answers = facts.Facts("run", text)
    status = {name: answers.status[name] for name in facts.KEPT}
    # As root crun takes `nodev` from the first `/`; one that a layer was slid under has it.
    mounts = sorted((m.target, m.kind, *sorted(m.options - {"nodev"})) for m in answers.mounts)
    names = ("content", "written", "cgroup", "devices", "links", "sockets", "setuid", "attempts")
    return status, mounts, {name: answers[name] for name in names}, answers


def test_row_117_after_everything_that_happens_to_a_session(kernel):
    *first, answers = found(kernel)
    assert set(answers.pairs("fds")) - {"0", "1", "2"} == set()
    *beside, also = found(kernel, "%%sh\n")
    assert beside == first
    assert set(also.pairs("fds")) == {"0", "1", "2"}

    running = kernel.client.execute("echo begun; sleep 100")
    until(lambda: kernel.client.get_iopub_msg(timeout=30)["content"].get("text") == "begun\n")
    kernel.ask_control("interrupt_request")
    kernel.reply_to(running)
    assert [*found(kernel)[:3]] == first

    kernel.run("%%build --net none\necho > /new-layer")
    assert [*found(kernel)[:3]] == first  # after a rebase

    kernel.run(f"echo {CANARY} > /tmp/{CANARY}; export {CANARY.replace('-', '_')}=1; sleep 999 &")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=30)
    prepare(kernel)
    *again, last = found(kernel)
    assert again == first
    assert not any(CANARY.replace("-", "_") in line for line in last["environment"])
    assert "sleep" not in last["processes"]
    assert "No such" in kernel.text(f"cat /tmp/{CANARY}")


def test_row_117_nothing_of_another_notebook_is_in_a_container(kernel, tmp_path, home, oci_runtime):
    kernel.run(f"echo {CANARY} > /tmp/{CANARY}; export {CANARY.replace('-', '_')}=1; sleep 999 &")
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = RealKernel(other_folder, home, oci_runtime)
    try:
        other.run("%base busybox")
        said = other.text("env; ls /tmp /work; cat /proc/[0-9]*/comm; ls /run/container-kernel")
        assert CANARY not in said
        assert CANARY.replace("-", "_") not in said
        assert "sleep" not in said
        assert "probe" not in said
    finally:
        other.close()
    assert os.path.exists(tmp_path / "probe")
