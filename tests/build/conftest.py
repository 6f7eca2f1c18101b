"""Workbenches, driven by steps, on the store that all tests share."""

import json

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.build.step import Base, Packages
from container_kernel.kernel import records
from container_kernel.kernel.magics import build_items
from container_kernel.record import replace
from container_kernel.workbench import Workbench


@pytest.fixture
def folder(tmp_path):
    """The notebook's folder."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    return folder


class Bench:
    """A workbench with its events, driven by steps."""

    def __init__(self, workbench):
        self.workbench = workbench
        self.events = []

    def build(self, cell_id, *items, cancel=None, **more):
        self.workbench.build(
            cell_id,
            repr(items),
            items,
            on_event=self.events.append,
            cancel=cancel or Cancel(),
            **more,
        )

    def image(self, stage=None):
        return self.workbench.image(stage, on_event=self.events.append, cancel=Cancel())

    def tag(self, name):
        self.workbench.store.tags.set(name, self.image().digest)

    def output(self, script, stage=None):
        live = self.workbench.fresh(self.image(stage))
        try:
            container = live.start(["/bin/sh", "-c", script])
            container.wait()
            with open(container.stdout, closefd=False, errors="replace") as stdout:
                return stdout.read()
        finally:
            live.close()

    def kinds(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def make_bench(settings, entered, folder):
    """Workbenches of this test, closed at its end."""
    made = []

    def make_bench(config=settings, directory=folder, **more):
        workbench = Workbench(config, entered, directory, parse=build_items, **more)
        made.append(Bench(workbench))
        return made[-1]

    yield make_bench
    for bench in made:
        bench.workbench.close()


@pytest.fixture
def bench(make_bench):
    """A workbench with a busybox base."""
    bench = make_bench()
    bench.build("base", Base("busybox"))
    bench.events.clear()
    return bench


@pytest.fixture
def debian(make_bench):
    """A Debian with python3."""
    bench = make_bench()
    bench.build("base", Base("debian:bookworm"))
    bench.build("apt", Packages("apt", ("python3",)))
    return bench


@pytest.fixture
def unique(request, tmp_path):
    """A comment that makes a step new in the store all tests share."""
    return f"# {request.node.name} {tmp_path}"


@pytest.fixture
def locked(make_bench, settings, folder):
    """Builds the same cells, held to their lock, with nothing cached."""
    notebook = folder / "some.ipynb"
    notebook.write_text(json.dumps({"cells": [], "metadata": {}}))

    def locked(*steps, base="debian:bookworm", use_cache=False, is_locked=True, **more):
        config = replace(settings, is_locked=is_locked, **more)
        bench = make_bench(config, notebook=notebook, use_cache=use_cache)
        bench.build("base", Base(base))
        for number, step in enumerate(steps):
            bench.build(f"cell-{number}", step)
        return bench

    locked.notebook = notebook
    return locked


def lock_of(bench, notebook):
    """Write the lock of what was built; its stage."""
    made = bench.workbench.lock(on_event=bench.events.append, cancel=Cancel())
    records.write(made, notebook)
    return made.stages["main"]
