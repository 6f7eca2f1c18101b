from hypothesis import given
from hypothesis import strategies as st

from container_kernel.display.log import MOST_IN_ALL, MOST_LINES, Log, as_html, plain


def log(*pieces):
    made = Log()
    for piece in pieces:
        made.write(piece)
    return made


def test_lines_come_in_pieces():
    assert log("a", "b\nc", "", "d\n").lines == ("ab", "cd")


def test_an_unfinished_line_is_the_last():
    made = log("a\nb")
    assert made.lines == ("a", "b")
    assert made.total == 2


def test_a_progress_bar_leaves_its_last_state():
    assert log("10%\r", "50%\r100%\n").lines == ("100%",)
    assert log("10%\r", "50%\r").lines == ("50%",)


def test_windows_line_ends_are_line_ends():
    assert log("a\r\nb\r\n").lines == ("a", "b")


def test_the_last_lines_are_kept_and_all_are_counted():
    made = log("".join(f"{n}\n" for n in range(10_000)))
    assert made.total == 10_000
    assert made.lines[-1] == "9999"
    assert len(made.lines) == MOST_LINES


def test_a_line_without_end_costs_no_memory():
    made = Log()
    for _ in range(1000):
        made.write("x" * 1000)
    assert len(made._open) <= 8000


def test_long_lines_are_kept_within_bounds():
    made = log(("x" * 5000 + "\n") * 1000)
    assert sum(map(len, made.lines)) <= MOST_IN_ALL


def test_last_skips_blank_lines():
    assert log("a\n\nb\n \n").last(5) == ("a", "b")


def test_markup_in_a_log_is_text():
    assert as_html("<script>&amp;") == "&lt;script&gt;&amp;amp;"


def test_colours_become_spans():
    shown = '<span style="color:#d74c48;">red</span> plain'
    assert as_html("\x1b[31mred\x1b[0m plain") == shown


def test_colours_are_escaped_too():
    assert as_html("\x1b[1m<b>\x1b[22m") == '<span style="font-weight:600;">&lt;b&gt;</span>'


def test_everything_else_a_terminal_obeys_is_gone():
    hostile = "\x1b]0;title\x07a\x1b[2Jb\x1b[10;10Hc\x07\x08\u202e\x9bd\x1b]8;;http://x\x1b\\link"
    assert plain(hostile) == "abcdlink"


@given(st.text(alphabet=st.sampled_from("\x1b[];m019\r\n<>&\"'ab\x07\\"), max_size=60))
def test_no_text_gets_out_of_its_element(text):
    made = log(text)
    for line in made.lines:
        shown = as_html(line)
        assert shown.count("<span") == shown.count("</span>")
        rest = shown.replace("</span>", "")
        assert all(part.startswith("span style=") for part in rest.split("<")[1:])
        assert "\x1b" not in plain(line)
