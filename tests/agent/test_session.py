"""What a cell can rely on in the Python agent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1 + 1", ["2"]),
        ("1 + 1;", []),
        ("1 + 1  # not quiet;", ["2"]),
        ("1 + 1;  # quiet", []),
        ("(1 +\n 1);", []),
        ("None", []),
        ("x = 3\nx", ["3"]),
        ("'a;b'", ["'a;b'"]),
        ("", []),
        ("# nothing", []),
    ],
)
def test_the_last_expression_is_shown(agent, code, shown):
    if agent.version < (3, 8) and "quiet" in code:
        pytest.skip("before Python 3.8 an expression's end is not known")
    result = agent.run(code)
    assert (result.status, result.shown()) == ("ok", shown)


def test_results_are_kept(agent):
    first = agent.run("40 + 1")
    count = first.events[0][1]["content"]["execution_count"]
    assert agent.run("_ + 1").shown() == ["42"]
    assert agent.run(f"_{count}, Out[{count}], In[{count}], __").shown() == [
        "(41, 41, '40 + 1', 41)"
    ]
    assert agent.run("_i").shown() == [repr(f"_{count}, Out[{count}], In[{count}], __")]


def test_a_silent_cell_shows_nothing(agent):
    assert agent.run("5", silent=True).events == []


def test_rich_objects_in_order_with_prints(agent):
    code = (
        "class Rich:\n"
        "    def _repr_html_(self): return '<b>'\n"
        "    def _repr_png_(self): return b'\\x89PNG', {'width': 1}\n"
        "    def _repr_svg_(self): raise NotImplementedError\n"
        "class Own:\n"
        "    def _ipython_display_(self): print('own')\n"
        "for i in range(3):\n    print('p', i); display(i)\n"
        "display(Own())\n"
        "Rich()"
    )
    result = agent.run(code)
    kinds = [kind for kind, _ in result.log]
    assert kinds == ["stdout", "display_data"] * 3 + ["stdout", "execute_result"]
    content = result.log[-1][1]["content"]
    assert content["data"]["text/html"] == "<b>"
    assert content["data"]["image/png"].startswith("iVBO")
    assert content["metadata"] == {"image/png": {"width": 1}}
    assert "image/svg+xml" not in content["data"]


def test_displays_are_updated_and_cleared(agent):
    result = agent.run("h = display('a', display_id='x'); h.update('b'); h.display('c')")
    events = [(kind, e["content"]["transient"]["display_id"]) for kind, e in result.events]
    assert events == [("display_data", "x"), ("update_display_data", "x"), ("display_data", "x")]
    code = "from IPython.display import clear_output, update_display\nclear_output(wait=True)"
    result = agent.run(code)
    assert result.events[0][1]["content"] == {"wait": True}


def test_a_small_ipython_where_there_is_none(agent):
    code = (
        "from IPython.display import display, HTML, Markdown, Image, SVG, JSON, Math, IFrame\n"
        "from IPython import get_ipython\n"
        "display(HTML('<b>'), Markdown('*'), Image(data=b'\\x89PNG'), SVG('<svg/>'),\n"
        "        JSON({'a': 1}), Math('x'), Image(url='http://x/y.png', width=3))\n"
        "display(IFrame('http://x', 1, 2))\n"
        "get_ipython()"
    )
    result = agent.run(code)
    assert result.status == "ok", result.traceback
    assert result.shown("text/html")[0] == "<b>"
    assert 'src="http://x/y.png" width="3"' in result.shown("text/html")[1]
    assert result.shown("image/png") == ["iVBORw=="]
    assert result.shown("application/json") == [{"a": 1}]
    assert result.shown("text/latex") == ["$\\displaystyle x$"]


def test_long_containers_are_spread(agent):
    assert agent.run("list(range(5))").shown() == ["[0, 1, 2, 3, 4]"]
    lines = agent.run("{'key%d' % i: list(range(i * 9)) for i in range(4)}").shown()[0].split("\n")
    assert lines[0] == "{'key0': [],"
    assert lines[-1].endswith("26]}")
    assert agent.run("('x' * 90,)").shown() == ["('" + "x" * 90 + "',)"]


def test_child_processes_print_in_order(agent):
    code = (
        "import subprocess, os\n"
        "print('a', end=' ')\nsubprocess.call(['echo', 'b'])\nprint('c')\nos.system('echo d')\n"
        "!echo e\nprint('f');"
    )
    assert agent.run(code).out == "a b\nc\nd\ne\nf\n"


def test_text_without_a_line_end_comes_at_once(agent):
    cell = agent.start("import time\nprint('dot', end='')\ntime.sleep(20)")
    agent.wait_for_text("dot")
    agent.interrupt()
    assert agent.finish(cell).reply["ename"] == "KeyboardInterrupt"


def test_much_output_is_whole(agent):
    code = (
        "import sys\nn = sys.stdout.write('x' * 3000000 + '\\n')\nfor i in range(20000): print(i)"
    )
    result = agent.run(code)
    assert len(result.out) == 3000001 + sum(len(str(i)) + 1 for i in range(20000))


def test_streams_take_any_text(agent):
    result = agent.run("import sys\nprint('ä€\\udc80')\nsys.stdout.buffer.write(b'raw\\n');")
    assert result.out == "ä€\\udc80\nraw\n"


def test_output_is_whole_where_a_child_made_the_pipe_non_blocking(agent):
    code = "import os\nos.set_blocking(1, False)\nprint('x' * 1000000)\nos.set_blocking(1, True)"
    assert agent.run(code).out == "x" * 1000000 + "\n"
    assert agent.run("import sys; sys.stdout.write(b'')").reply["ename"] == "TypeError"


@pytest.mark.parametrize("code", ["time.sleep(20)", "subprocess.run(['sleep', '20'])", "!sleep 20",
                                  "while True: pass"])  # fmt: skip
def test_interrupt(agent, code):
    agent.run("import time, subprocess")
    cell = agent.start(f"print('on')\n{code}")
    agent.wait_for_text("on")
    time.sleep(0.1)
    begin = time.monotonic()
    agent.interrupt()
    result = agent.finish(cell)
    if (
        agent.version > (3, 6) or "time" in code or "while" in code
    ):  # it stumbles over its own clearing up
        assert result.reply["ename"] == "KeyboardInterrupt"
    assert time.monotonic() - begin < 10
    agent.interrupt()
    assert agent.run("'alive'").shown() == ["'alive'"]


def test_interrupt_while_displays_go_out(agent):
    for _ in range(5):
        cell = agent.start("while True: display(1)")
        agent.wait_for_event("display_data")
        agent.interrupt()
        assert agent.finish(cell).reply["ename"] == "KeyboardInterrupt"
    assert agent.run("display(2)").shown() == ["2"]


def test_an_interrupt_cuts_no_event_in_two(agent):
    cell = agent.start("big = 'x' * 500000\nprint('on')\ndisplay(big)")
    time.sleep(0.5)  # it waits for room in the pipe: nobody has read yet
    agent.interrupt()
    time.sleep(0.1)
    result = agent.finish(cell)
    assert result.reply["ename"] == "KeyboardInterrupt"
    assert len(result.shown()[0]) == 500002


def test_a_cell_that_took_the_interrupt_gives_it_back(agent):
    agent.run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    cell = agent.start("print('on')\nimport time\ntime.sleep(20)")
    agent.wait_for_text("on")
    time.sleep(0.1)
    agent.interrupt()
    assert agent.finish(cell).reply["ename"] == "KeyboardInterrupt"


def test_leaving_is_told_and_the_session_stays(agent):
    agent.run("kept = 1")
    result = agent.run("import sys; sys.exit(3)")
    assert (result.reply["ename"], result.reply["evalue"]) == ("SystemExit", "3")
    assert "restart" in result.err
    assert agent.run("kept").shown() == ["1"]


def test_input_and_getpass(agent):
    agent.answers = ["Ada", "secret"]
    result = agent.run("import getpass\n(input('name? '), getpass.getpass())")
    assert result.shown() == ["('Ada', 'secret')"]
    asked = [e for kind, e in result.log if kind == "input_request"]
    assert [(e["prompt"], e["password"]) for e in asked] == [
        ("name? ", False),
        ("Password: ", True),
    ]


def test_no_input_where_nobody_answers(agent):
    assert agent.run("input()").reply["ename"] == "StdinNotImplementedError"


def test_user_expressions(agent):
    reply = agent.run("a = 2", user_expressions={"sum": "a + 1", "wrong": "b0"}).reply
    assert reply["user_expressions"]["sum"]["data"] == {"text/plain": "3"}
    assert reply["user_expressions"]["wrong"]["ename"] == "NameError"


def test_top_level_await_and_tasks(agent):
    if agent.version < (3, 8):
        pytest.skip("Python 3.8 brought it")
    code = (
        "import asyncio\nawait asyncio.sleep(0.01)\nprint('woke')\nawait asyncio.sleep(0, 'value')"
    )
    result = agent.run(code)
    assert (result.out, result.shown()) == ("woke\n", ["'value'"])
    agent.run("async def later():\n    await asyncio.sleep(0.05)\n    print('task')\n"
              "t = asyncio.create_task(later())")  # fmt: skip
    agent.wait_for_text("task")
    assert agent.run("t.done()").shown() == ["True"]
    assert agent.run("asyncio.run(asyncio.sleep(0, 5))").shown() == ["5"]
    assert agent.run("await asyncio.sleep(0, 6)").shown() == ["6"]


def test_interrupt_of_an_await(agent):
    if agent.version < (3, 8):
        pytest.skip("Python 3.8 brought it")
    cell = agent.start("import asyncio\nprint('on')\nawait asyncio.sleep(20)")
    agent.wait_for_text("on")
    time.sleep(0.1)
    agent.interrupt()
    assert agent.finish(cell).reply["ename"] == "KeyboardInterrupt"
    assert agent.run("await asyncio.sleep(0, 7)").shown() == ["7"]


def test_a_thread_speaks_for_the_cell_that_started_it(agent):
    code = (
        "import threading\ngo = threading.Event()\n"
        "def work():\n    print('early')\n    go.wait()\n"
        "    print('late')\n    display('late too')\n"
        "t = threading.Thread(target=work); t.start()"
    )
    cell = agent.start(code)
    agent.finish(cell)
    agent.wait_for_text("early\n")
    result = agent.run("go.set(); t.join(); print('other')")
    beside = "".join(e["text"] for kind, e in result.log if kind == "old stdout")
    assert (beside, result.out) == ("late\n", "other\n")
    assert {e["cell"] for kind, e in result.log if kind == "old stdout"} == {cell}
    assert [e["cell"] for kind, e in result.log if kind == "display_data"] == [cell]


def test_a_fork_that_comes_back_is_no_second_kernel(agent):
    code = (
        "import os\npid = os.fork()\nx = os.write(1, b'parent\\n' if pid else b'child\\n')\n"
        "x = pid and os.waitpid(pid, 0)"
    )
    result = agent.run(code)
    assert sorted(result.out.split()) == ["child", "parent"]
    assert agent.run("1").shown() == ["1"]


def test_multiprocessing(agent):
    code = (
        "import multiprocessing\n"
        "def square(x): return x * x\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    found = pool.map(square, [1, 2])\n"
        "found"
    )
    assert agent.run(code).shown() == ["[1, 4]"]


def test_a_crash_says_where(fresh):
    agent = fresh()
    agent.start("import ctypes\nctypes.string_at(0)")
    agent.process.wait(30)
    agent._take(0)
    assert "Segmentation fault" in agent.text("stderr")
    assert "<cell 1>" in agent.text("stderr")


def test_future_imports_hold_for_later_cells(agent):
    if agent.version < (3, 7):
        pytest.skip("Python 3.7 brought the first that matters")
    agent.run("from __future__ import annotations")
    assert agent.run("def f(x: nowhere): pass\nf.__annotations__").shown() == ["{'x': 'nowhere'}"]


def test_inspect_finds_the_cells_text(agent):
    agent.run("def found(x):\n    'What it is.'\n    return x")
    assert "return x" in agent.run("import inspect\nprint(inspect.getsource(found))").out


def test_warnings_show_the_line(agent):
    result = agent.run("import warnings\nwarnings.warn('beware')")
    assert "beware" in result.err
    if agent.version >= (3, 8):  # older ones know no file for a cell
        assert "warnings.warn('beware')" in result.err


def test_what_reading_the_second_half_took_is_given_back(fresh):
    process = Path(f"/proc/{fresh().process.pid}/status")
    deadline = time.monotonic() + 30
    while (held := memory_kib(process))["VmHWM"] - held["VmRSS"] < 2000:  # 1200 by itself
        assert time.monotonic() < deadline, held
        time.sleep(0.02)


def memory_kib(status):
    """The memory of a process at its most, and now."""
    rows = (line.split() for line in status.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[0] in ("VmHWM:", "VmRSS:")}
