"""Meters: what is shown is what is used; drawn anew in place until interrupted; for collectors."""

from __future__ import annotations

import re
import time

import pytest

from container_kernel.display import meters
from container_kernel.runtime import meter
from container_kernel.runtime.host import Host
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.meter import Use
from tests.kernel.conftest import TIMEOUT_S, types, until
from tests.kernel.test_real import RealKernel


def use(**changes):
    values = {
        "source": "/proc",
        "cpu_seconds": 1.0,
        "memory_bytes": 50_000_000,
        "peak_memory_bytes": 60_000_000,
        "swap_bytes": None,
        "pids": 3,
        "read_bytes": 0,
        "written_bytes": 0,
    }
    return Use(**values | changes)


@pytest.fixture
def gauge():
    gauge = meters.Gauge("main", Limits(memory_bytes=100_000_000, pids=10), 2)
    gauge.add(use(), 0)
    gauge.add(use(cpu_seconds=1.5, written_bytes=2_000_000, pressure={"cpu": 12.3}), 0.5)
    return gauge


def test_a_picture_has_text_and_a_line_for_the_last_minute(gauge):
    shown = meters.bundle([gauge])
    assert re.search(r"main +100 % +▄ +50.0 MB / 100 MB +▄▄ +3 / 10", shown["text/plain"])
    assert "4.00 MB/s" in shown["text/plain"]
    assert "cpu 12 %" in shown["text/plain"]
    assert shown["text/html"].count("<polyline") == 2
    assert "application/json" not in shown


def test_a_name_cannot_bring_markup_into_the_picture():
    gauge = meters.Gauge("<script>", Limits(), 1)
    gauge.add(use(), 0)
    assert "<script>" not in meters.bundle([gauge])["text/html"]


def test_programs_get_numbers(gauge):
    data = meters.bundle([gauge], with_data=True)["application/json"]
    (one,) = data["containers"]
    assert (one["stage"], one["cpu_percent"], one["pids"]) == ("main", 100.0, 3)
    assert one["memory_limit_bytes"] == 100_000_000
    assert one["pressure"] == {"cpu": 12.3}


def test_collectors_get_prometheus_text():
    text = meter.prometheus({'a"b': use()}, {"kernel": "k"})
    assert "# TYPE container_kernel_cpu_seconds_total counter\n" in text
    assert 'container_kernel_memory_bytes{kernel="k",stage="a\\"b"} 50000000\n' in text
    assert "swap_bytes{" not in text


@pytest.fixture(scope="module")
def kernel(tmp_path_factory, oci_runtime):
    folder, home = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("home")
    metrics = folder / "metrics"
    metrics.mkdir()
    (folder / "container_kernel_config.py").write_text(
        f"c.ContainerKernel.metrics_folder = {str(metrics)!r}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_DIR", str(folder))
        kernel = RealKernel(folder, home, oci_runtime)
    kernel.metrics = metrics
    assert kernel.run("%base busybox")[0]["status"] == "ok"
    assert kernel.run("true")[0]["status"] == "ok"
    yield kernel
    kernel.close()
    assert list(metrics.iterdir()) == []


@pytest.mark.privileged
def test_top_shows_what_a_busy_container_uses(kernel, entered, oci_runtime):
    kernel.run("(while :; do :; done) & sleep 0.3")
    _, outputs = kernel.run("%top --once --json")
    data = next(o["content"]["data"] for o in outputs if o["msg_type"] == "display_data")
    (one,) = data["application/json"]["containers"]
    kernel.run("kill $!")
    assert one["stage"] == "main"
    assert one["cpu_percent"] > 5
    assert one["cpu_seconds"] > 0.02
    assert 100_000 < one["memory_bytes"] < 100_000_000
    assert 2 <= one["pids"] < 10
    has_cgroup = Host.open(entered, oci_runtime).runtime.cgroup is not None
    assert one["source"].startswith("cgroup v") is has_cgroup


@pytest.mark.privileged
def test_top_is_drawn_in_place_until_it_is_interrupted(kernel):
    msg_id = kernel.client.execute("%top --interval 50ms")
    found = []
    while types(found).count("update_display_data") < 2:
        found.append(kernel.client.get_iopub_msg(timeout=TIMEOUT_S))
    begun = time.monotonic()
    kernel.ask_control("interrupt_request")
    assert kernel.reply_to(msg_id)["content"]["status"] == "ok"
    assert time.monotonic() - begun < 1
    found += kernel.outputs_until_idle(msg_id)
    assert types(found).count("display_data") == 1
    ids = {one["content"].get("transient", {}).get("display_id") for one in found} - {None}
    assert len(ids) == 1


@pytest.mark.privileged
def test_top_ends_by_itself_where_nobody_can_interrupt_it(kernel):
    msg_id = kernel.client.execute("%top --interval 50ms", allow_stdin=False)
    assert kernel.reply_to(msg_id)["content"]["status"] == "ok"
    kinds = [one["msg_type"] for one in kernel.outputs_until_idle(msg_id)]
    assert (kinds.count("display_data"), kinds.count("update_display_data")) == (1, 0)


@pytest.mark.privileged
def test_meters_are_written_for_a_collector(kernel):
    (file,) = until(lambda: list(kernel.metrics.glob("*.prom")))
    text = file.read_text()
    assert re.search(r'container_kernel_pids\{kernel="[\w-]+",stage="main"\} \d', text)
    assert file.stat().st_mode & 0o444
