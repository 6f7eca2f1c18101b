"""Completion, help and completeness in the Python agent."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def names(agent):
    agent.run(
        "import os\n"
        "class Thing:\n    attribute = 1\n    _private = 2\n"
        "thing, things = Thing(), [Thing()]\n"
        "table = {'first': 1, 'second': {'inner': 's'}, 3: 4}\n"
        "def call_me(alpha, beta=2, *, gamma=3): 'Calls.'\n"
        "open('some file.txt', 'w').close()\n"
        "os.makedirs('folder', exist_ok=True); open('folder/deep.txt', 'w').close()"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("thi", "things"),
        ("impor", "import"),
        ("zi", "zip"),
        ("thing.attr", "thing.attribute"),
        ("thing._pri", "thing._private"),
        ("things[0].att", "things[0].attribute"),
        ("table['second'].ke", "table['second'].keys"),
        ("'abc'.upp", "'abc'.upper"),
        ("x = os.path.jo", "x = os.path.join"),
        ("import js", "import json"),
        ("import json.dec", "import json.decoder"),
        ("from json import dum", "from json import dumps"),
        ("from json import loads, dum", "from json import loads, dumps"),
        ("from json.dec", "from json.decoder"),
        ("table['fi", "table['first"),
        ('table["se', 'table["second'),
        ("table['second']['in", "table['second']['inner"),
        ("call_me(1, ga", "call_me(1, gamma="),
        ("call_me(max(1, 2), be", "call_me(max(1, 2), beta="),
        ("open('some", "open('some file.txt"),
        ("open('fol", "open('folder/"),
        ("open('folder/de", "open('folder/deep.txt"),
        ("!cat fol", "!cat folder/"),
        ("%cd fol", "%cd folder/"),
        ("%timei", "%timeit"),
        ("%%timei", "%%timeit"),
    ],
)
def test_completion(agent, code, expected):
    assert expected in agent.matches(code)


def test_completion_is_of_what_stands_at_the_cursor(agent):
    reply = agent.ask("complete", "thing.attr + zi", 10)
    assert (reply["matches"], reply["cursor_start"], reply["cursor_end"]) == (["attribute"], 6, 10)
    assert "_private" not in agent.ask("complete", "thing.")["matches"]


@pytest.mark.parametrize(
    "code", ["nothing.x", "f().", "thing.no.", "table[oh", "'", "((", "1.", ""]
)
def test_completion_of_nonsense_does_no_harm(agent, code):
    assert agent.ask("complete", code)["status"] == "ok"


def test_completion_runs_no_code_of_the_users(agent):
    agent.run("class Loud:\n    def __getitem__(self, key): print('called')\nloud = Loud()")
    assert agent.matches("loud['a'].x") == []
    assert agent.text("stdout") == ""


def test_help_at_the_cursor(agent):
    for code, cursor in (("call_me", 3), ("call_me(1, ", 11), ("call_me([1, 2], ", 16)):
        data = agent.ask("inspect", code, cursor)["data"]
        assert "call_me(alpha, beta=2, *, gamma=3)" in data["text/plain"]
        assert "Calls." in data["text/plain"]
    assert "def call_me" in agent.ask("inspect", "call_me", 3, detail_level=1)["data"]["text/plain"]
    assert agent.ask("inspect", "nothing_there", 3)["found"] is False


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("1", "complete"),
        ("!ls", "complete"),
        ("%time x", "complete"),
        ("x?", "complete"),
        ("print('''hello", "incomplete"),
        ("def f(x):\n  x*2", "incomplete"),
        ("def f(x):\n  return x*2\n\n\n", "complete"),
        ("if x:", "incomplete"),
        ("f(1,", "incomplete"),
        ("%%time", "incomplete"),
        ("%%time\nx\n\n", "complete"),
        ("import = 7q", "invalid"),
    ],
)
def test_completeness(agent, code, status):
    assert agent.ask("is_complete", code)["status"] == status


def test_indentation_of_the_next_line(agent):
    assert agent.ask("is_complete", "if x:")["indent"] == "    "
    assert agent.ask("is_complete", "if x:\n    if y:")["indent"] == "        "
