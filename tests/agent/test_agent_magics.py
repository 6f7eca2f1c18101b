"""The magics, shell lines and question marks that the Python agent knows."""

from __future__ import annotations

import pytest

from container_kernel.kernel import foreign


def test_shell_lines(agent):
    agent.run("name, folder = 'Ada', {'k': 'v'}")
    assert agent.run("!echo $name {name.upper()} {folder['k']} ${HOME} {a,b}").out.split()[:3] == [
        "Ada", "ADA", "v"
    ]  # fmt: skip
    assert agent.run("x = !printf 'a\\nb\\n'\nx, x.n").shown() == ["(['a', 'b'], 'a\\nb')"]
    assert agent.run("!exit 3\n_exit_code").shown() == ["3"]
    assert agent.run("for i in range(2):\n    !echo {i}").out == "0\n1\n"
    assert agent.run("!echo one \\\n  two").out == "one two\n"
    assert agent.run("!awk 'BEGIN {print \"x\"}'").out == "x\n"


def test_places(agent):
    before = agent.run("%pwd").shown()[0]
    assert agent.run("%cd /").out == "/\n"
    assert agent.run("%pwd").shown() == ["'/'"]
    assert agent.run("%cd -").out.strip() == before.strip("'")


def test_times(agent):
    result = agent.run("%time y = 1 + 1\ny")
    assert "Wall time: " in result.out
    assert result.shown() == ["2"]
    result = agent.run("%%time\nz = 3\nz")
    assert ("CPU times" in result.out, result.shown()) == (True, ["3"])
    assert "of 2 runs, 3 loops each)" in agent.run("%timeit -n 3 -r 2 y + 1").out
    assert "of 1 run, 10 loops each)" in agent.run("%%timeit -n 10 -r 1 a = 1\na + 1").out
    assert "loops each" in agent.run("%timeit -r 1 y").out


def test_variables(agent):
    agent.run("%reset -f")
    agent.run("import os\none, two = 1, 'zwei'")
    assert agent.run("%who").out.split() == ["one", "os", "two"]
    assert agent.run("%who_ls str").shown() == ["['two']"]
    assert "two        str      'zwei'" in agent.run("%whos").out
    agent.run("%reset -f")
    assert agent.run("one").reply["ename"] == "NameError"


@pytest.mark.parametrize("code", ["%matplotlib inline", "%matplotlib inline\nx = 1",
                                  "%config InlineBackend.figure_format = 'png'"])  # fmt: skip
def test_figures_are_inline_anyway(agent, code):
    assert agent.run(code).status == "ok"


@pytest.mark.parametrize(
    "code", ["%load_ext autoreload", "%lprun f", "%%cython\nx", "%matplotlib qt"]
)
def test_what_is_ipythons_says_so(agent, code):
    result = agent.run(code)
    assert result.reply["ename"] == "UsageError"
    assert "%pip ipykernel" in result.reply["evalue"]
    assert "agent.py" not in result.traceback


def test_a_cell_for_a_program(agent):
    assert agent.run("%%bash\nfor i in 1 2; do echo $i; done").out == "1\n2\n"
    assert agent.run("%%script sh -e\nfalse").reply["ename"] == "CalledProcessError"


def test_a_cell_for_a_file(agent):
    assert agent.run("%%writefile made.py\nanswer = 42\n").out == "Writing made.py\n"
    agent.run("%%writefile -a made.py\nimport sys; args = sys.argv\n")
    assert agent.run("%run made.py a\n(answer, args[1:])").shown() == ["(42, ['a'])"]
    assert agent.run("%cat made.py").out.startswith("answer = 42\n")


def test_a_cell_to_show(agent):
    assert agent.run("%%html\n<b>x</b>").shown("text/html") == ["<b>x</b>"]
    assert agent.run("%%markdown\n*x*").shown("text/markdown") == ["*x*"]


def test_a_cell_to_keep(agent):
    result = agent.run("%%capture kept\nprint('said')\ndisplay('shown')\n1")
    assert result.log == []
    result = agent.run("kept()\nkept.stdout")
    assert result.out == "said\n"
    assert result.shown() == ["'shown'", "1", "'said\\n'"]


def test_question_marks(agent):
    agent.run("def told(x, y=2):\n    'What it does.'\n    return x")
    page = agent.run("told?").reply["payload"][0]
    assert page["source"] == "page"
    text = page["data"]["text/plain"]
    assert "told(x, y=2)" in text
    assert "What it does." in text
    assert "return x" in agent.run("told??").reply["payload"][0]["data"]["text/plain"]
    assert "not found" in agent.run("?nothing_there").out
    assert "how long" in agent.run("%time?").reply["payload"][0]["data"]["text/plain"]


def test_the_list(agent):
    out = agent.run("%lsmagic").out
    assert "%timeit" in out
    assert "%%writefile" in out


def test_the_outer_kernel_offers_all_of_them(agent):
    found = [word for word in agent.run("%lsmagic").out.split() if word != "%help"]
    assert {word for word in found if word.startswith("%")} == foreign.AGENT


def test_line_numbers_stay(agent):
    shown = agent.run("!true \\\n  x\n%pwd\n1 / 0").traceback
    assert "----> 4 1 / 0" in shown
