import pytest

from container_kernel.kernel.front import Request
from container_kernel.kernel.queue import ShellQueue
from container_kernel.kernel.wire import Message, Session, Signer

SIGNER = Signer(b"")
SESSION = Session(SIGNER)


def request(msg_type, **content):
    return Request("shell", Message.parse(SESSION.frames(msg_type, content), SIGNER))


def cell():
    return request("execute_request", code="1")


def look_up():
    return request("complete_request")


@pytest.fixture
def started():
    return []


@pytest.fixture
def queue(started):
    return ShellQueue(started.append)


def test_cells_run_one_at_a_time(queue, started):
    cells = [cell(), cell(), cell()]
    for one in cells:
        queue.push(one)
    assert started == cells[:1]
    queue.done(cells[0])
    assert started == cells[:2]


def test_look_up_goes_on_while_a_cell_runs(queue, started):
    requests = [cell(), look_up()]
    for one in requests:
        queue.push(one)
    assert started == requests


def test_look_up_does_not_overtake_a_waiting_cell(queue, started):
    requests = [cell(), cell(), look_up()]
    for one in requests:
        queue.push(one)
    assert started == requests[:1]
    queue.done(requests[0])
    assert started == requests


def test_taken_cells_are_those_that_wait(queue, started):
    requests = [cell(), cell(), look_up(), cell()]
    for one in requests:
        queue.push(one)
    assert queue.take_cells() == [requests[1], requests[3]]
    queue.done(requests[0])
    assert started == [requests[0], requests[2]]


def test_done_of_another_cell_changes_nothing(queue, started):
    requests = [cell(), cell()]
    for one in requests:
        queue.push(one)
    queue.done(requests[1])
    assert started == requests[:1]


def test_cells_that_end_at_once_do_not_recurse():
    queue = ShellQueue(lambda one: queue.done(one))
    queue._is_advancing = True
    for _ in range(5000):
        queue.push(cell())
    queue._is_advancing = False
    queue.push(cell())
    assert len(queue) == 0
