"""What an image's config asks for happens in its container, or is refused (threats, D 59, 61)."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.record import replace
from container_kernel.runtime.host import Host, find_tool
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.live import Live
from container_kernel.runtime.wish import Wish
from tests.runtime.conftest import read

pytestmark = pytest.mark.privileged
HOSTILE = ("LD_PRELOAD=/evil.so", "PYTHONPATH=/evil", "TWO=a\nEVIL=b", "=x", "NONE", "PATH=/bin")
TOO_BIG = "x" * (1 << 20)


@pytest.fixture
def spied(entered, oci_runtime, tmp_path):
    """This host, its OCI runtime behind a program that notes the environment it is given."""
    tmp_path.chmod(0o755)
    notes = tmp_path / "notes"
    notes.touch()
    program = tmp_path / oci_runtime
    noted = f'tr "\\0" "\\n" </proc/$$/environ >>{notes}'
    program.write_text(f'#!/bin/sh\n{noted}\nexec {find_tool(oci_runtime)} "$@"\n')
    program.chmod(0o755)
    return Host.open(entered, str(program)), notes


@pytest.fixture
def opened(prober, place):
    """A container context on an image with other settings."""

    @contextmanager
    def opened(host=place.host, **settings):
        image = prober.workbench.image(on_event=lambda _: None, cancel=Cancel())
        config = replace(image.config, **settings)
        wish = Wish(limits=Limits(pids=200))
        live = Live(host, place.store, image.chain_id, config, prober.folder, wish)
        try:
            yield live
        finally:
            live.close()

    return opened


def test_row_59_the_environment_of_an_image_is_set_inside_and_nowhere_else(opened, spied):
    host, notes = spied
    ours = dict(os.environ)
    with opened(host, env=HOSTILE) as live:
        said = read(live.start(["/bin/sh", "-c", 'echo "$TWO"; echo ".$EVIL.$LD_PRELOAD"']))
    assert said.splitlines() == ["a", "EVIL=b", "../evil.so"]
    assert os.environ == ours
    seen = notes.read_text()
    assert "PATH=" in seen
    assert "evil" not in seen.lower()


def test_row_59_a_variable_too_long_for_the_host_kernel_is_said_by_the_container(opened):
    with opened(env=(f"BIG={TOO_BIG}",)) as live:
        container = live.start(["/bin/true"])
        with open(container.stderr, closefd=False, errors="replace") as stderr:
            said = stderr.read()
        assert container.delete().status != 0
    assert "argument list too long" in said.lower()


def test_row_59_many_arguments_arrive(opened):
    words = ["/bin/sh", "-c", "echo $#", *["x"] * 100_000]
    with opened(entrypoint=None, cmd=tuple(words)) as live:
        assert read(live.start(words)) == "99999\n"


def test_row_61_volumes_of_an_image_are_no_mounts(opened, tmp_path):
    canary = tmp_path / "canary"
    canary.mkdir()
    names = ("/../../canary", str(canary), "/proc/self/root", "../..", "/etc", "/volume")
    volumes = {"Volumes": {name: {} for name in names}}
    script = "cat /proc/self/mounts; ls -d /volume /canary 2>&1"
    with opened() as live:
        plain = read(live.start(["/bin/sh", "-c", script]))
    with opened(config_extra=volumes) as live:
        said = read(live.start(["/bin/sh", "-c", script]))
    assert len(said.splitlines()) == len(plain.splitlines())
    assert "canary:" in said
    assert list(canary.iterdir()) == []
