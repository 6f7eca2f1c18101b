import json

import pytest

from container_kernel.errors import CellError
from container_kernel.kernel.outputs import LIMIT_BYTES, Outputs
from container_kernel.kernel.wire import Session, Signer

session = Session(Signer(b"key"))


@pytest.fixture
def outputs():
    return Outputs()


def say(outputs, text, name="stdout"):
    outputs.note(session.frames("stream", {"name": name, "text": text}))


def test_a_cell_is_found_by_number_by_id_and_as_the_last(outputs):
    outputs.begin(1, "first")
    say(outputs, "a")
    say(outputs, "not this", "stderr")
    say(outputs, "b")
    outputs.begin(2, None)
    assert outputs.text("1") == outputs.text("first") == outputs.text("last") == "ab"


def test_the_cell_that_asks_is_not_meant(outputs):
    outputs.begin(1, "same")
    say(outputs, "before")
    outputs.begin(2, "same")
    assert outputs.text("same") == "before"


def test_other_messages_are_not_kept(outputs):
    outputs.begin(1, None)
    outputs.note(session.frames("display_data", {"data": {"text/plain": json.dumps("stream")}}))
    outputs.begin(2, None)
    with pytest.raises(CellError, match=r"cell \[1\] printed nothing"):
        outputs.text("last")


@pytest.mark.parametrize("which", ["last", "7", "x"])
def test_what_never_ran_is_not_there(outputs, which):
    outputs.begin(1, None)
    with pytest.raises(CellError, match=f"no cell '{which}' ran before"):
        outputs.text(which)


def test_too_much_is_refused_and_not_kept(outputs):
    outputs.begin(1, None)
    for _ in range(10):
        say(outputs, "x" * (LIMIT_BYTES // 4))
    outputs.begin(2, None)
    with pytest.raises(CellError, match="printed more than 4 MiB"):
        outputs.text("last")
    assert sum(map(len, outputs._cells[0].contents)) < 2 * LIMIT_BYTES


def test_only_some_cells_are_kept(outputs):
    for number in range(1, 30):
        outputs.begin(number, None)
        say(outputs, str(number))
    with pytest.raises(CellError, match="no cell '1'"):
        outputs.text("1")
    assert outputs.text("28") == "28"
