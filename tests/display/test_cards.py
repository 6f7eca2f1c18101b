import pytest

from container_kernel.build.events import Layer, StepFailed, StepFinished, StepLog, StepStarted
from container_kernel.display import cards
from container_kernel.display.cards import CardBoard
from container_kernel.display.log import Log
from container_kernel.display.terminal import TerminalBoard
from container_kernel.errors import CellError
from container_kernel.oci.digest import Digest

DIGEST = Digest.of(b"layer")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def about(**more):
    return {"step_id": "s", "stage": "main", "number": 2, "total": 5, "title": "%pip x", **more}


def started(**more):
    return StepStarted(**about(**more))


def finished(*, cached=False, layer=True, **more):
    made = Layer(DIGEST, DIGEST, 12_345_678, "%pip x", 1.2, cached) if layer else None
    return StepFinished(**about(**more), layer=made, cached=cached, seconds=1.2)


def failed(**more):
    facts = {"exit_code": 1, "interrupted": False, "seconds": 0.5} | more
    return StepFailed(**about(), error=CellError("no"), tail=("no such package",), **facts)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def published():
    return []


@pytest.fixture
def board(published, clock):
    return CardBoard(lambda kind, content: published.append((kind, content)), clock)


def texts(published):
    return [content["data"]["text/plain"] for _, content in published]


def ids(published):
    return {content["transient"]["display_id"] for _, content in published}


def test_a_card_is_displayed_once_and_updated_in_place(board, published, clock):
    board.on_event(started())
    clock.now += 1
    board.on_event(StepLog(step_id="s", text="Collecting x\n"))
    board.on_event(finished())
    kinds = [kind for kind, _ in published]
    assert kinds == ["display_data", "update_display_data", "update_display_data"]
    assert len(ids(published)) == 1


def test_a_cached_step_is_one_message(board, published):
    board.on_event(finished(cached=True))
    assert [kind for kind, _ in published] == ["display_data"]


def test_each_step_has_its_own_card(board, published):
    board.on_event(started(step_id="a"))
    board.on_event(started(step_id="b"))
    assert len(ids(published)) == 2


def test_updates_come_at_most_every_tenth_of_a_second(board, published, clock):
    board.on_event(started())
    for n in range(1000):
        clock.now += 0.001
        board.on_event(StepLog(step_id="s", text=f"{n}\n"))
    assert len(published) <= 12


def test_what_was_held_back_is_shown_by_the_next_tick(board, published, clock):
    board.on_event(started())
    board.on_event(StepLog(step_id="s", text="late\n"))
    assert "late" not in texts(published)[-1]
    clock.now += 0.2
    board.tick()
    assert "late" in texts(published)[-1]


def test_a_tick_without_news_publishes_nothing(board, published, clock):
    board.on_event(started())
    clock.now += 0.2
    board.tick()
    assert len(published) == 1


def test_a_tick_shows_the_seconds_that_pass(board, published, clock):
    board.on_event(started())
    clock.now += 3.01
    board.tick()
    assert "running 3 s" in texts(published)[-1]


def test_the_last_state_is_never_held_back(board, published):
    board.on_event(started())
    board.on_event(finished())
    assert texts(published)[-1].startswith("✓ [2] %pip x · sha256:")


def test_logs_of_unknown_steps_are_dropped(board, published):
    board.on_event(StepLog(step_id="never", text="x"))
    assert published == []


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (finished(), f"✓ [2] %pip x · {DIGEST.short} · 12.3 MB"),
        (finished(layer=False, title="%env A=1"), "✓ [2] %env A=1 · set"),
        (finished(number=0), f"✓ [base] %pip x · {DIGEST.short} · 12.3 MB"),
        (finished(stage="b", layer=False), "✓ [b 2] %pip x · set"),
        (failed(), "✗ [2] %pip x · failed, exit code 1"),
        (failed(exit_code=None), "✗ [2] %pip x · failed"),
        (failed(interrupted=True), "✗ [2] %pip x · interrupted, nothing frozen"),
        (started(), "… [2/5] %pip x · running"),
    ],
)
def test_a_card_in_one_line(event, text):
    assert cards.line(event) == text


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (finished(), "1.2 s"),
        (finished(cached=True), "cached"),
        (finished(layer=False), ""),
        (failed(), "500 ms"),
        (started(), ""),
    ],
)
def test_a_terminal_is_told_what_a_step_took(event, text):
    assert cards.cost(event) == text


def test_what_is_saved_tells_neither_the_time_nor_whether_the_layer_was_there():
    built = cards.bundle(finished(total=3), Log(), 1.2)
    assert built == cards.bundle(finished(total=5, cached=True), Log(), 0.1)
    one, other = failed(seconds=0.5), failed(seconds=0.7)
    assert cards.bundle(one, Log(), 0.5) == cards.bundle(other, Log(), 0.7)


def test_a_cached_card_is_the_same_bytes_each_time():
    one = cards.bundle(finished(cached=True), Log(), 0.1)
    assert one == cards.bundle(finished(cached=True, total=9), Log(), 0.7)


def test_a_running_card_shows_the_last_lines():
    log = Log()
    log.write("".join(f"line {n}\n" for n in range(100)))
    bundle = cards.bundle(started(), log)
    for shown in bundle.values():
        assert "line 99" in shown
        assert "line 91" not in shown


def test_a_finished_card_folds_its_log():
    log = Log()
    log.write("".join(f"line {n}\n" for n in range(1000)))
    shown = cards.bundle(finished(), log)["text/html"]
    assert "<details>" in shown
    assert "log, 1000 lines" in shown
    assert "(900 lines before these)" in shown
    assert "line 999" in shown


def test_hostile_titles_and_logs_are_text():
    log = Log()
    log.write("</pre><script>alert(1)</script>")
    event = started(title='%%build <img src=x onerror="alert(1)">\n\x1b[2J')
    shown = cards.bundle(event, log)["text/html"]
    assert "<script" not in shown
    assert "<img" not in shown
    assert "\x1b" not in shown


class Screen:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def test_a_log_file_gets_every_line(clock):
    screen = Screen()
    board = TerminalBoard(screen.write, None, clock)
    for event in (started(), StepLog(step_id="s", text="one\n\x1b[31mtwo\n"), failed()):
        board.on_event(event)
    assert screen.text.splitlines() == [
        "… [2/5] %pip x · running",
        "one",
        "two",
        "✗ [2] %pip x · failed, exit code 1 · 500 ms",
    ]


def test_a_terminal_gets_one_live_line(clock):
    screen = Screen()
    board = TerminalBoard(screen.write, 60, clock)
    board.on_event(started())
    clock.now += 1
    board.on_event(StepLog(step_id="s", text="fetching " + "x" * 100 + "\n"))
    assert "\n" not in screen.text
    assert max(len(part) for part in screen.text.split("\r\x1b[K")) < 60
    board.on_event(finished())
    assert screen.text.endswith("1.2 s\n")
