"""Notebooks as files: built whole, as bases of others, remembered from kernel to kernel."""

import json
import os
from pathlib import Path

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.build.events import StepFailed, StepFinished, StepStarted
from container_kernel.build.step import Base
from container_kernel.errors import CellError
from container_kernel.errors import StepFailed as StepFailedError
from container_kernel.kernel.magics import build_items

pytestmark = pytest.mark.privileged


def notebook(path: Path, *cells: str):
    """Write a notebook file with these code cells."""
    document = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {"id": f"c{i}", "cell_type": "code", "source": text, "outputs": [], "metadata": {}}
            for i, text in enumerate(cells)
        ],
    }
    path.write_text(json.dumps(document))


def build_cell(bench, cell_id, code):
    bench.workbench.build(
        cell_id, code, build_items(code), on_event=bench.events.append, cancel=Cancel()
    )


def live_of(bench):
    return bench.workbench.live(on_event=bench.events.append, cancel=Cancel())


def build_all(bench):
    return bench.workbench.build_all(on_event=bench.events.append, cancel=Cancel())


def test_a_notebook_built_whole_is_what_its_cells_make_one_by_one(make_bench, folder, unique):
    cells = ["%base busybox", f"%%build\n{unique}\necho a > /a", "%env WORD=one", "1 + 1"]
    notebook(folder / "mine.ipynb", *cells)
    whole = make_bench(notebook=folder / "mine.ipynb")
    images = build_all(whole)
    told = [(event.number, event.total) for event in whole.kinds(StepFinished)]
    assert told == [(0, 2), (1, 2), (2, 2)]
    by_cells = make_bench()
    for number, code in enumerate(cells[:3]):
        build_cell(by_cells, f"c{number}", code)
    assert images["main"].digest == by_cells.image().digest


def test_without_the_cache_each_step_runs_once(make_bench, folder, unique):
    steps = [f"%%build\n{unique}\necho {n} >> /n" for n in range(4)]
    notebook(folder / "mine.ipynb", "%base busybox", *steps)
    bench = make_bench(notebook=folder / "mine.ipynb", use_cache=False)
    build_all(bench)
    assert [event.number for event in bench.kinds(StepStarted)] == [1, 2, 3, 4]


def test_a_mistake_in_any_cell_is_told_before_anything_is_built(make_bench, folder, unique):
    notebook(folder / "mine.ipynb", "%base busybox", f"%%build\n{unique}\ntrue", "%copy only_one")
    bench = make_bench(notebook=folder / "mine.ipynb")
    with pytest.raises(CellError, match="%copy needs more") as caught:
        build_all(bench)
    assert caught.value.__notes__ == ["in code cell 3: %copy only_one"]
    assert bench.events == []


def test_what_was_frozen_before_a_step_failed_is_there_the_next_time(make_bench, folder, unique):
    path = folder / "mine.ipynb"
    for ending in ("exit 3", "true"):
        notebook(path, "%base busybox", f"%%build\n{unique}\ntrue", f"%%build\n{unique}\n{ending}")
        bench = make_bench(notebook=path)
        if ending == "exit 3":
            with pytest.raises(StepFailedError):
                build_all(bench)
            assert len(bench.kinds(StepFailed)) == 1
        else:
            build_all(bench)
    assert [event.cached for event in bench.kinds(StepFinished)] == [True, True, False]


def test_another_notebook_is_a_base(bench, folder, unique):
    notebook(folder / "other.ipynb", "%base busybox", f"%%build\n{unique}\necho o > /o", "print(1)")
    bench.build("b", Base("./other.ipynb", "second"))
    assert bench.output("cat /o", "second") == "o\n"


def test_another_notebook_may_have_several_stages(bench, folder, unique):
    notebook(
        folder / "other.ipynb",
        "%base busybox --as one",
        "%base busybox --as two",
        "%use one",
        f"%%build\n{unique}\necho 1 > /one",
    )
    bench.build("b", Base("./other.ipynb", "second"))
    assert bench.output("cat /one", "second") == "1\n"


def test_notebooks_that_stand_on_each_other_are_an_error(make_bench, folder):
    notebook(folder / "a.ipynb", "%base ./b.ipynb")
    notebook(folder / "b.ipynb", "%base ./a.ipynb")
    with pytest.raises(CellError, match=r"b\.ipynb"):
        make_bench().build("x", Base("./a.ipynb"))


def test_a_notebook_is_remembered(make_bench, folder, unique):
    notebook(folder / "mine.ipynb", "%base busybox", f"%%build\n{unique}\necho r > /r")
    first = make_bench(notebook=folder / "mine.ipynb")
    for number, code in enumerate(("%base busybox", f"%%build\n{unique}\necho r > /r")):
        first.workbench.build(
            f"c{number}", code, build_items(code), on_event=first.events.append, cancel=Cancel()
        )
    digest = first.image().digest
    second = make_bench(notebook=folder / "mine.ipynb")
    assert second.workbench.recall()
    assert second.image().digest == digest


def test_a_notebook_stands_on_the_image_of_the_kernel_it_has_now(make_bench, folder, unique):
    notebook(folder / "mine.ipynb", f"%%build\n{unique}\necho r > /r")
    first = make_bench(notebook=folder / "mine.ipynb")
    assert first.workbench.recall("busybox")
    build_cell(first, "c0", f"%%build\n{unique}\necho r > /r")
    first.tag("standing:1")
    other = make_bench(notebook=folder / "mine.ipynb")
    assert other.workbench.recall("standing:1")
    assert other.workbench.stages["main"].base == "standing:1"
    assert len(other.image().layers) == 3  # busybox, the step in the image, the same step on it
    plain = make_bench(notebook=folder / "mine.ipynb")
    assert not plain.workbench.recall()  # its step stands on nothing now


@pytest.fixture
def opened_again(make_bench, folder, unique):
    """A workbench on a notebook that another one has built: a base, a step, a setting."""
    cells = {"c0": "%base busybox", "c1": f"%%build\n{unique}\necho r > /r", "c2": "%env WORD=one"}
    notebook(folder / "mine.ipynb", *cells.values())
    first = make_bench(notebook=folder / "mine.ipynb")
    for cell_id, code in cells.items():
        build_cell(first, cell_id, code)
    first.image()
    return make_bench(notebook=folder / "mine.ipynb")


def test_the_last_image_is_there_before_any_cell(opened_again):
    stage, live = opened_again.workbench.anticipate()
    assert stage == "main"
    assert live.read("/r") == "r\n"
    opened_again.workbench.recall()
    assert live_of(opened_again) is live


@pytest.mark.parametrize(
    ("cell_id", "code"),
    [("c1", "%%build\n{unique}\necho other > /r"), ("c2", "%env WORD=two")],
    ids=["layer", "config"],
)
def test_an_image_that_is_another_by_now_is_not_run(opened_again, cell_id, code, unique):
    _, anticipated = opened_again.workbench.anticipate()
    opened_again.workbench.recall()
    build_cell(opened_again, cell_id, code.format(unique=unique))
    live = live_of(opened_again)
    assert live is not anticipated
    assert ("WORD=two" in live.config.env, live.read("/r")) in [(False, "other\n"), (True, "r\n")]


def test_a_given_image_is_anticipated_where_nothing_is_known(make_bench, opened_again):
    tag = f"given-{os.getpid()}"
    opened_again.workbench.recall()
    opened_again.image()
    opened_again.tag(tag)
    _, live = make_bench().workbench.anticipate(tag)
    assert live.read("/r") == "r\n"


def test_a_kernel_without_a_notebook_anticipates_what_the_last_such_ran_on(make_bench):
    bench = make_bench()
    build_cell(bench, "c0", "%base busybox --as other")
    chain = live_of(bench).chain_id
    next_bench = make_bench()
    stage, live = next_bench.workbench.anticipate()
    assert (stage, live.chain_id) == ("other", chain)
    build_cell(next_bench, "c0", "%base busybox")
    assert live_of(next_bench) is not live
    assert next_bench.workbench.lives.get("other") is None
    assert not next_bench.workbench.recall()


def test_nothing_is_anticipated_where_nothing_is_known(make_bench, folder, opened_again):
    notebook(folder / "new.ipynb", "%base busybox")
    assert make_bench(notebook=folder / "new.ipynb").workbench.anticipate() is None


@pytest.fixture
def edited(make_bench, folder, unique):
    """Builds a notebook's cells one by one, then has its file say something else."""

    def edited(cells, *now):
        path = folder / "mine.ipynb"
        write_cells(path, cells)
        first = make_bench(notebook=path)
        for cell_id, code in cells.items():
            if code.startswith("%use"):
                first.workbench.use(code.split()[1])
            else:
                build_cell(first, cell_id, code)
        first.image()
        write_cells(path, {cell_id: cells[cell_id] for cell_id in now})
        return first, make_bench(notebook=path)

    return edited


def write_cells(path, cells):
    notebook(path, *cells.values())
    document = json.loads(path.read_text())
    for cell, cell_id in zip(document["cells"], cells, strict=True):
        cell["id"] = cell_id
    path.write_text(json.dumps(document))


STEPS = {n: f"%%build\necho {n} >> /f" for n in "123"}


def test_cells_that_were_moved_are_built_in_their_new_order(edited):
    first, again = edited({"base": "%base busybox", **STEPS}, "base", "3", "1", "2")
    assert first.output("cat /f") == "1\n2\n3\n"
    assert again.workbench.recall()
    assert again.output("cat /f") == "3\n1\n2\n"
    build_cell(first, "1", STEPS["1"])  # the session that built them sees it too
    assert first.output("cat /f") == "3\n1\n2\n"


def test_a_cell_that_was_moved_below_another_base_is_of_that_stage(edited):
    cells = {"a": "%base busybox --as a", "1": STEPS["1"], "b": "%base busybox --as b"}
    _, again = edited(cells, "a", "b", "1")
    assert again.workbench.recall()
    assert again.output("cat /f", "b") == "1\n"
    assert again.output("cat /f || true", "a") == ""


def test_a_cell_behind_use_is_of_the_stage_in_use(edited):
    cells = {"a": "%base busybox --as a", "b": "%base busybox --as b", "u": "%use a"}
    _, again = edited({**cells, "1": STEPS["1"]}, "a", "b", "u", "1")
    assert again.workbench.recall()
    assert again.output("cat /f", "a") == "1\n"


def test_cells_without_ids_that_the_file_lost_are_not_remembered(make_bench, folder):
    path = folder / "mine.ipynb"
    notebook(path, "%base busybox", STEPS["1"], STEPS["2"])
    first = make_bench(notebook=path)
    for code in ("%base busybox", STEPS["1"], STEPS["2"]):
        build_cell(first, None, code)
    first.image()
    notebook(path, "%base busybox", STEPS["2"])
    again = make_bench(notebook=path)
    assert again.workbench.recall()
    assert again.output("cat /f") == "2\n"
