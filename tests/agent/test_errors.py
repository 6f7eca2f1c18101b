"""Tracebacks of the Python agent, which read as IPython's do."""

from __future__ import annotations

import pytest


def test_a_traceback_names_cells_and_lines(agent):
    agent.run("def f(a, *rest, key=1, **more):\n    b = 2\n    return a / 0")
    result = agent.run("# a comment\nf(1)\n")
    lines = result.traceback.split("\n")
    assert set(lines[0]) == {"-"}
    assert lines[1].split() == [
        "ZeroDivisionError",
        "Traceback",
        "(most",
        "recent",
        "call",
        "last)",
    ]
    assert lines[2].endswith("line 2")
    assert lines[2].startswith("Cell In[")
    assert lines[3:5] == ["      1 # a comment", "----> 2 f(1)"]
    assert lines[6].endswith("line 3, in f(a, key, *rest, **more)")
    assert "----> 3     return a / 0" in lines
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert (result.reply["ename"], result.reply["evalue"]) == (
        lines[-1].split(":")[0],
        "division by zero",
    )


def test_the_failing_expression_is_marked(agent):
    if agent.version < (3, 11):
        pytest.skip("Python 3.11 brought the places of expressions")
    shown = "\n".join(agent.run("x = 1 + (2 / 0)").reply["traceback"])
    assert "x = 1 + (\x1b[43m2 / 0\x1b[49m)" in shown


def test_frames_of_libraries_are_shown_and_ours_are_not(agent):
    shown = agent.run("import json\njson.loads('{')").traceback
    assert "json/decoder.py:" in shown
    assert "agent.py" not in shown
    assert "agent.py" not in agent.run("import no_such_module").traceback
    assert "agent.py" not in agent.run("from IPython.display import no_such_name").traceback
    if agent.version >= (3, 8):
        shown = agent.run("import asyncio\nasync def f(): 1 / 0\nawait f()").traceback
        assert "agent.py" not in shown
        assert "base_events" not in shown


def test_a_syntax_error_points(agent):
    result = agent.run("x = 1\ny = = 2")
    lines = result.traceback.split("\n")
    assert "line 2" in lines[0]
    assert lines[1] == "    y = = 2"
    assert lines[2] == "        ^"
    assert lines[3] == "SyntaxError: invalid syntax"
    assert result.reply["ename"] == "SyntaxError"
    assert "IndentationError" in agent.run("if 1:\nx").traceback


def test_a_syntax_error_elsewhere_says_who_asked(agent):
    shown = agent.run("exec('a b')").traceback
    assert "----> 1 exec('a b')" in shown
    assert shown.endswith("SyntaxError: invalid syntax")


def test_chained_errors(agent):
    code = "try:\n    {}['k']\nexcept KeyError as error:\n    raise ValueError('outer') from error"
    shown = agent.run(code).traceback
    assert shown.index("KeyError: 'k'") < shown.index("direct cause") < shown.index("ValueError: o")
    shown = agent.run(code.replace(" from error", "")).traceback
    assert "During handling" in shown
    shown = agent.run(code.replace("from error", "from None")).traceback
    assert "KeyError: 'k'" not in shown


def test_a_chain_in_a_ring_ends(agent):
    if agent.version < (3, 7):
        pytest.skip("Python 3.6 itself never ends")
    shown = agent.run(
        "a, b = ValueError(1), ValueError(2)\na.__context__ = b\nb.__context__ = a\nraise a"
    )
    assert "ValueError: 1" in shown.traceback


def test_deep_recursion_is_cut(agent):
    result = agent.run("def f(n): return f(n + 1)\nf(0)")
    assert result.reply["ename"] == "RecursionError"
    assert "frames like this one left out" in result.traceback
    assert len(result.reply["traceback"]) < 60
    assert agent.run("1").shown() == ["1"]


def test_notes_and_groups(agent):
    if agent.version < (3, 11):
        pytest.skip("Python 3.11 brought them")
    shown = agent.run("e = ValueError('x'); e.add_note('a note'); raise e").traceback
    assert shown.endswith("ValueError: x\na note")
    shown = agent.run("raise ExceptionGroup('many', [KeyError(1), TypeError('t')])").traceback
    assert "TypeError: t" in shown


def test_errors_that_cannot_be_shown_are(agent):
    code = "class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd"
    result = agent.run(code)
    assert result.reply["ename"] == "Odd"
    assert "str() failed" in result.traceback
    shown = agent.run("class Odd:\n    def __repr__(self): raise RuntimeError('no')\nOdd()").shown()
    assert shown == ["<Odd whose repr raises RuntimeError('no')>"] or "RuntimeError" in shown[0]
    assert "no" in agent.run("class H:\n    def _repr_html_(self): raise ValueError('no')\nH()").err


def test_the_last_error_is_kept(agent):
    agent.run("1 / 0")
    assert "ZeroDivisionError" in agent.run("%tb").err
