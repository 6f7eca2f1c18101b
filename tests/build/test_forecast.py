"""The forecast of what a kernel starts first: taken where it is right, without harm where not."""

import json
import os
import time

import pytest

from container_kernel.build import forecast
from container_kernel.errors import ContainerKernelError
from container_kernel.kernel.head_start import HeadStart
from container_kernel.kernel.opening import Opening
from container_kernel.record import replace
from container_kernel.store.store import Store
from tests.build.test_notebooks import build_cell, notebook

pytestmark = pytest.mark.privileged


@pytest.fixture
def mine(make_bench, folder, unique, settings, monkeypatch):
    """A notebook that another kernel has built, and the settings in the environment."""
    monkeypatch.setenv("CONTAINER_KERNEL_HOME", str(settings.home))
    monkeypatch.setenv("CONTAINER_KERNEL_RUNTIME", settings.oci_runtime)
    cells = {"c0": "%base busybox", "c1": f"%%build\n{unique}\necho r > /r", "c2": "%env WORD=one"}
    path = folder / "mine.ipynb"
    notebook(path, *cells.values())
    first = make_bench(notebook=path)
    for cell_id, code in cells.items():
        build_cell(first, cell_id, code)
    first.image()
    return path


@pytest.fixture
def start(entered):
    """A head start for a notebook: its stage and what was launched."""
    started = []

    def start(path):
        opening = Opening(entered, path)
        head_start = HeadStart(opening)
        started.append(head_start)
        stage, launched = head_start.wait()
        return stage, launched

    yield start
    for head_start in started:
        if found := head_start.wait():
            found[1].forget()
        head_start.workbench.close()


@pytest.fixture
def bundles(entered):
    """The containers that were started since and are not forgotten."""
    folder = entered.run_dir / "bundles"

    def found():
        return {*os.listdir(folder)} if folder.exists() else set()

    before = found()
    return lambda: found() - before


def test_what_is_forecast_is_started_and_taken(mine, start, settings, bundles):
    found = forecast.read(settings.home, forecast.name_of(mine))
    stage, launched = start(mine)
    live = launched.live
    assert (stage, live.chain_id, live.config) == (found.stage, found.chain_id, found.config)
    assert "WORD=one" in live.config.env
    assert live.read("/r") == "r\n"
    assert not isinstance(live._store, Store)  # it was opened without
    assert bundles() == {launched.container.name}


@pytest.mark.parametrize("wrong", ["stage", "config", "chain_id"])
def test_a_wrong_forecast_is_replaced_and_leaves_nothing(
    mine, start, settings, make_bench, bundles, wrong
):
    name = forecast.name_of(mine)
    found = forecast.read(settings.home, name)
    bench = make_bench()
    build_cell(bench, "c0", "%base busybox")
    others = {
        "stage": "other",
        "config": replace(found.config, env=("WORD=two",)),
        "chain_id": bench.image().chain_id,
    }
    forecast.write(settings.home, name, replace(found, **{wrong: others[wrong]}))
    stage, launched = start(mine)
    live = launched.live
    assert (stage, live.chain_id, live.config) == (found.stage, found.chain_id, found.config)
    assert forecast.read(settings.home, name) == found  # for the next
    deadline = time.monotonic() + 5
    while launched.container.name not in (left := bundles()) or len(left) > 1:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_a_forecast_of_what_is_gone_is_none(mine, start, settings):
    name = forecast.name_of(mine)
    found = forecast.read(settings.home, name)
    chain = type(found.chain_id)("sha256:" + "0" * 64)
    forecast.write(settings.home, name, replace(found, chain_id=chain))
    _, launched = start(mine)
    assert launched.live.chain_id == found.chain_id


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "other"), ("store", "{}"), ("config", "{"), ("stage", None)],
)
def test_an_odd_forecast_is_none(mine, settings, key, value):
    name = forecast.name_of(mine)
    (file,) = [f for f in (settings.home / "forecasts").iterdir() if f"{mine}" in f.read_text()]
    said = json.loads(file.read_text())
    if value is None:
        del said[key]
    file.write_text(json.dumps(said | ({key: value} if value is not None else {})))
    assert forecast.read(settings.home, name) is None


def test_what_somebody_else_wrote_is_none(mine, settings, monkeypatch):
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    assert forecast.read(settings.home, forecast.name_of(mine)) is None


def test_below_the_level_that_is_asked_for_nothing_is_started(mine, entered, settings, monkeypatch):
    monkeypatch.setattr(Opening, "config", replace(settings, isolation="full"))
    opening = Opening(entered, mine)
    opening.host.level = replace(opening.host.level, name="single-uid")
    with pytest.raises(ContainerKernelError):
        opening.early(None)
