"""The Python agent's file as such; how it behaves as a kernel is in tests/kernel."""

import ast
import re
import subprocess
import sys
from importlib import resources

import pytest

SOURCE = resources.files("container_kernel.agent").joinpath("python.py").read_text()


def test_old_pythons_can_read_it():
    ast.parse(SOURCE, feature_version=(3, 6))


def test_old_pythons_can_define_it():
    """No annotation is evaluated that Python 3.6 does not know."""
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.FunctionDef):
            notes = [node.returns, *(a.annotation for a in node.args.args)]
            assert not [n for n in notes if isinstance(n, ast.Subscript | ast.BinOp)]


def test_it_needs_the_standard_library_only():
    names = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert names <= set(sys.stdlib_module_names)


def test_it_imports_little_to_start():
    code = f"import sys; before = set(sys.modules); exec({SOURCE!r}, {{'__name__': 'x'}})"
    show = "print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{code}; {show}"], capture_output=True, text=True, check=True
    )
    heavy = {"typing", "asyncio", "inspect", "subprocess", "traceback", "ast"}
    assert not heavy & set(done.stdout.split())


@pytest.fixture(scope="module")
def agent():
    names = {"__name__": "agent", "__file__": "agent.py"}
    exec(compile(SOURCE, "agent.py", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("!ls", "__agent__.shell('ls')"),
        ("  !ls -l", "  __agent__.shell('ls -l')"),
        ("!ls \\\n-l\n1", "__agent__.shell('ls  -l')\n\n1"),
        ("!echo it's\n!ls", "__agent__.shell(\"echo it's\")\n__agent__.shell('ls')"),
        ("x = !ls", "x = __agent__.lines('ls')"),
        ("a, b = !ls", "a, b = __agent__.lines('ls')"),
        ("!!ls", "__agent__.lines('ls')"),
        ("len?", "__agent__.about('len', 0)"),
        ("a.b??", "__agent__.about('a.b', 1)"),
        ("?len", "__agent__.about('len', 0)"),
        ("%time f(1)", "__agent__.magic('time', 'f(1)')"),
        ("x = %pwd", "x = __agent__.magic('pwd', '')"),
        ("for a in b:\n    %cd a", "for a in b:\n    __agent__.magic('cd', 'a')"),
        ("%%time\nf(1)\n", "__agent__.cell_magic('time', '', 'f(1)\\n')"),
        ("s = '''\n!ls\n'''\n", "s = '''\n!ls\n'''\n"),
        ("f(a,\n%b)", "f(a,\n%b)"),
        ("a = b \\\n%c", "a = b \\\n%c"),
        ("a != b", "a != b"),
    ],
)
def test_shell_lines_become_calls(agent, code, expected):
    assert agent["with_magics"](code) == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [("my_n", "my_name"), ("x.stri", "strip"), ("impor", "import"), ("import js", "json")],
)
def test_completion(agent, before, expected):
    start, matches = agent["complete"](before, {"my_name": 1, "x": "text"})
    assert expected in matches
    assert before[:start] + expected != before


@pytest.mark.parametrize(
    ("code", "cursor", "name"),
    [("len", 1, "len"), ("f(a.b", 5, "a.b"), ("max(1, ", 7, "max"), ("(1 + ", 5, "")],
)
def test_name_at_the_cursor(agent, code, cursor, name):
    assert agent["name_at"](code, cursor) == name


def traceback_of(agent, function):
    try:
        function()
    except Exception as error:
        text = "\n".join(agent["format_error"](type(error), error, error.__traceback__))
        return re.sub(r"\x1b\[\d+m", "", text)


def test_traceback_has_the_chain(agent):
    def fail():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    text = traceback_of(agent, fail)
    assert text.index("KeyError: 'inner'") < text.index("direct cause") < text.rindex("outer")


def test_traceback_marks_the_line(agent):
    def fail():
        raise ValueError("here")

    assert "----> " in traceback_of(agent, fail)


def test_pretty_breaks_long_containers_only(agent):
    assert agent["pretty"](list(range(5))) == "[0, 1, 2, 3, 4]"
    assert agent["pretty"]({"key": "v" * 90}).count("\n") == 0
    assert agent["pretty"](list(range(60))).count("\n") > 10


def test_a_broken_repr_is_told(agent):
    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    assert "RuntimeError" in agent["pretty"](Broken())


def test_rich_reprs_are_gathered(agent):
    class Rich:
        def _repr_html_(self):
            return "<b>"

        def _repr_png_(self):
            return b"\x89PNG", {"width": 1}

        def _repr_svg_(self):
            raise NotImplementedError

    data, metadata = agent["mime_bundle"](Rich())
    assert data["text/html"] == "<b>"
    assert data["image/png"].startswith("iVBO")
    assert metadata == {"image/png": {"width": 1}}
    assert "image/svg+xml" not in data
