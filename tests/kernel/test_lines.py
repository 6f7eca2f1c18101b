"""A session's environments: going back, going anywhere, and what differs between them."""

from __future__ import annotations

import pytest

from tests.kernel.test_session import NEW, home, open_kernel  # noqa: F401  # fixtures

pytestmark = pytest.mark.privileged
BACK = "back on what the cells of main build"


def step(name, where="/opt"):
    return f"%%build --net none\nmkdir -p {where}; echo {name} > {where}/{name}"


@pytest.fixture
def kernel(open_kernel):  # noqa: F811
    """Two steps, and a run cell in what they made."""
    return open_kernel("%base busybox", step("one"), step("two"), "ls /opt")


def test_undo_goes_back_and_checkout_forward_again(kernel):
    kernel.run("x=5")
    said = kernel.text("%undo")
    assert "back to @2" in said
    assert "%checkout @3 goes forward again" in said
    said = kernel.text("echo x is $x.; ls /opt")
    assert NEW in said
    assert "%undo went back" in said
    assert "x is ." in said
    assert said.split()[-1:] == ["one"]
    assert "back to @1" in kernel.text("%undo")
    assert "nothing was built or frozen" in str(kernel.run("%undo")[0])
    kernel.run("x=6")
    assert "on @3" in kernel.text("%checkout @3")
    said = kernel.text("echo x is $x.; ls /opt")
    assert "x is 6." in said  # it extends what the session was on, which goes along
    assert said.split()[-2:] == ["one", "two"]


def test_a_build_cell_ends_it_and_says_so_but_not_one_that_fails(kernel):
    kernel.run("%undo")
    assert kernel.run("%%build --net none\nexit 3")[0]["status"] == "error"
    assert kernel.text("ls /opt").split()[-1:] == ["one"]
    assert BACK in kernel.text(step("three"))
    assert kernel.text("ls /opt").split()[-3:] == ["one", "three", "two"]
    assert BACK not in kernel.text(step("four"))
    kernel.run("%undo")
    assert "four" not in kernel.text("ls /opt")


def test_undo_of_a_freeze_drops_what_cells_wrote_and_checkout_has_it_again(kernel):
    kernel.run("echo mine > ~/scratch")
    kernel.run("%freeze")
    assert "%checkout @4 goes forward" in kernel.text("%undo")
    assert "mine" not in kernel.text("cat ~/scratch")
    kernel.run("%checkout @4")
    assert "mine" in kernel.text("cat ~/scratch")


def test_a_branch_is_kept_and_moves_with_what_is_frozen_on_it(kernel):
    kernel.run("%undo")
    assert "early is @2" in kernel.text("%branch early")
    kernel.run("%checkout early")
    kernel.run("echo more > ~/more")
    before = kernel.text("%branch")
    kernel.run("%freeze")
    after = kernel.text("%branch")
    assert "*  early" in before
    assert before != after
    kernel.run("%checkout main")
    assert "two" in kernel.text("ls /opt")
    assert "*  main" in kernel.text("%branch")
    kernel.run("%checkout early")
    said = kernel.text("ls /opt; cat ~/more")
    assert "more" in said
    assert "two" not in said


def test_other_cells_know_where_the_session_is(kernel):
    digest = kernel.text("%branch here")
    short = digest[digest.index("sha256:") :].rstrip(")\n")
    kernel.run("%undo")
    reply = kernel.client.execute_interactive("true", output_hook=lambda _: None, timeout=30)
    mark = reply["metadata"]["container_kernel"]
    assert not mark["image"].startswith(short)
    assert mark["stage"] == "main"
    assert "two" not in kernel.text("%%run\nls /opt")
    kernel.run("%tag earlier")
    assert "two" not in kernel.text("%%run --image earlier\nls /opt")


def test_diff_tells_what_a_step_and_cells_changed(kernel):
    kernel.run("echo mine > ~/scratch")
    said = kernel.text("%diff")
    assert "from @2 (sha256:" in said
    assert "and what cells wrote" in said
    assert "+ /opt/two  4 B, 0644 0:0" in said
    assert "+ /home/  1 file, 5 B" in said
    assert "/opt/one" not in said
    assert "nothing differs" in kernel.text("%diff 2 @3")
    assert "- /opt/two" in kernel.text("%diff main 1")
    kernel.run("%%build --net none\necho other > /opt/one")
    assert "~ /opt/one" in kernel.text("%diff")  # also while no cell has run on it yet
    assert "-one\n+other" in kernel.text("%diff @3 now /opt/one")
    assert "is in neither" in str(kernel.run("%diff @3 now /nowhere")[0])


def test_what_is_no_environment_is_refused_and_changes_nothing(kernel):
    for cell in ("%checkout nowhere", "%diff @99", "%checkout @0"):
        assert kernel.run(cell)[0]["ename"] == "CellError"
    assert kernel.text("ls /opt").split()[-2:] == ["one", "two"]
