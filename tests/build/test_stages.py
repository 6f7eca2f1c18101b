"""Stages that take files from each other."""

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.build.events import StepStarted
from container_kernel.build.step import Base, Copy, Shell
from container_kernel.errors import CellError
from tests.build.test_notebooks import build_all, notebook

pytestmark = pytest.mark.privileged


def test_copy_from_another_stage(bench, unique):
    bench.build("other", Base("busybox", "maker"))
    bench.build("make", Shell(f"{unique}\nmkdir /out; echo made > /out/thing"))
    bench.workbench.use("main")
    bench.build("a", Copy(("/out/thing",), "/thing", "maker"))
    assert bench.output("cat /thing", "main") == "made\n"


@pytest.fixture
def two(bench, unique):
    """A stage ``maker``, and the stage ``main``, which takes a file from it."""
    bench.build("other", Base("busybox", "maker"))
    bench.build("make", Shell(f"{unique}\necho one > /thing"))
    bench.workbench.use("main")
    bench.build("take", Copy(("/thing",), "/thing", "maker"))
    bench.events.clear()
    return bench


def test_a_stage_is_stale_when_one_that_it_takes_from_has_changed(two, unique):
    assert two.output("cat /thing", "main") == "one\n"
    two.build("make", Shell(f"{unique}\necho two > /thing"))
    assert two.workbench.stages["main"].is_stale
    assert two.output("cat /thing", "main") == "two\n"
    assert not two.workbench.stages["main"].is_stale


def test_a_live_session_goes_over_to_what_another_stage_has_become(two, unique):
    def seen():
        live = two.workbench.live("main", on_event=two.events.append, cancel=Cancel())
        return live.read("/thing")

    assert seen() == "one\n"
    two.build("make", Shell(f"{unique}\necho two > /thing"))
    assert seen() == "two\n"


def test_a_change_that_makes_the_same_files_runs_nothing_again(two, unique):
    two.build("make", Shell(f"{unique}\necho one > /thing; : another way"))
    two.events.clear()
    assert two.output("cat /thing", "main") == "one\n"
    assert two.kinds(StepStarted) == []


def test_stages_that_take_from_each_other_are_refused_and_nothing_is_lost(two):
    two.workbench.use("maker")
    with pytest.raises(CellError, match="copy from each other: maker → main → maker"):
        two.build("back", Copy(("/thing",), "/thing2", "main"))
    assert two.output("ls /thing*", "maker") == "/thing\n"


def test_a_notebook_of_such_stages_is_refused_too(make_bench, folder):
    copies = ["%base busybox --as one", "%copy --from two /bin/sh /srv/"]
    copies += ["%base busybox --as two", "%copy --from one /bin/sh /srv/"]
    notebook(folder / "mine.ipynb", *copies)
    with pytest.raises(CellError, match="copy from each other: one → two → one"):
        build_all(make_bench(notebook=folder / "mine.ipynb"))


def test_a_stage_with_a_new_name_keeps_its_cells(two):
    two.build("base", Base("busybox", "final"))
    assert list(two.workbench.stages) == ["maker", "final"]
    assert two.output("cat /thing", "final") == "one\n"
