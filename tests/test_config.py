"""Settings say what is wrong with them."""

from __future__ import annotations

import pytest

from container_kernel import config
from container_kernel.errors import UsageError


@pytest.fixture
def load(tmp_path):
    """Load one line of a configuration file."""

    def get(line):
        (tmp_path / "container_kernel_config.py").write_text(line)
        return config.load({"HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path)})

    return get


def test_builds_give_way_to_cells(load):
    found = load("")
    assert found.run_limits({}).cpu_shares is None  # everybody's, 1024
    assert 0 < found.build_limits.cpu_shares < 1024


def test_nothing_stands_still_by_default(load):
    assert load("").idle_freeze is None


@pytest.mark.parametrize("value", [600, 0.5, None])
def test_idle_freeze_is_seconds_or_never(load, value):
    assert load(f"c.ContainerKernel.idle_freeze = {value}").idle_freeze == value


@pytest.mark.parametrize("value", ["-1", "0", "'10'", "True", "float('nan')", "float('inf')", "[]"])
def test_idle_freeze_is_nothing_else(load, value):
    with pytest.raises(UsageError, match=r"idle_freeze is .*, not a number of seconds above 0"):
        load(f"c.ContainerKernel.idle_freeze = {value}")


def test_a_setting_that_is_not_there_is_an_error(load):
    with pytest.raises(UsageError, match=r"no setting c\.ContainerKernel\.idle_frieze"):
        load("c.ContainerKernel.idle_frieze = 1")
