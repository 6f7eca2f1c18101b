"""The rooms, their order and their habits, held by reading the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "container_kernel"
ROOMS = [
    *(
        "errors",
        "record",
        "folders",
        "syscalls",
        "oci",
        "store",
        "transfer",
        "runtime",
        "agent",
        "build",
        "workbench",
    ),
    *("ceilings", "config", "display", "kernel", "cluster", "cli", "__main__"),
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "_images")
JUPYTER = {"ipykernel", "jupyter_client", "jupyter_core", "nbclient", "nbformat", "traitlets"}
# What the first kernel_info_reply must not wait for.
HEAVY = {
    "asyncio",
    "jupyter_client",
    "jupyter_core",
    "nbclient",
    "nbformat",
    "traitlets",
    "IPython",
}

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: dotted(path))


def dotted(path: Path) -> str:
    """``oci.digest`` for ``container_kernel/oci/digest.py``, ``oci`` for its ``__init__.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


def room(name: str) -> str:
    return name.split(".")[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def walk_running(node: ast.AST, *, functions: bool = True) -> Iterator[ast.AST]:
    """Every node below that runs; without ``functions``, only what runs on import."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            yield from (part for kept in child.orelse for part in walk_running(kept))
        elif functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from walk_running(child, functions=functions)


def imports(path: Path, *, functions: bool = True) -> Iterator[str]:
    """The absolute dotted name of everything a module imports when it runs."""
    here = path.relative_to(PACKAGE.parent).parent.parts
    for node in walk_running(ast.parse(path.read_text()), functions=functions):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else ()
            stem = [*start, *filter(None, [node.module])]
            yield from (".".join([*stem, name.name]) for name in node.names)


def own_imports(path: Path, *, functions: bool = True) -> Iterator[str]:
    prefix = f"{PACKAGE.name}."
    for name in imports(path, functions=functions):
        if name.startswith(prefix):
            yield name.removeprefix(prefix)


@each_module
def test_every_module_is_in_a_room(path):
    assert room(dotted(path)) in [*ROOMS, "__init__"]


@each_module
def test_imports_only_point_up_the_list(path):
    below = ROOMS[ROOMS.index(room(dotted(path))) + 1 :] if dotted(path) != "__init__" else ROOMS
    assert [name for name in own_imports(path) if room(name) in below] == []


def test_no_import_cycles():
    names = {dotted(path) for path in MODULES}
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        wanted = own_imports(path, functions=False)
        # "oci.digest.Digest" is a name in the module "oci.digest".
        targets = {name if name in names else name.rpartition(".")[0] for name in wanted}
        graph[dotted(path)] = (targets & names) - {dotted(path)}
    TopologicalSorter(graph).prepare()


@each_module
def test_only_the_edge_knows_jupyter(path):
    if room(dotted(path)) not in {"kernel", "config", "cli"}:
        assert not JUPYTER & {room(name) for name in imports(path)}


@each_module
def test_only_the_kernel_speaks_zmq(path):
    if room(dotted(path)) != "kernel":
        assert "zmq" not in {room(name) for name in imports(path)}


def attribute_uses(path: Path, owner: str, names: set[str]) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    ]


@each_module
def test_only_the_edge_reads_the_environment(path):
    if room(dotted(path)) in {
        "oci",
        "store",
        "transfer",
        "runtime",
        "build",
        "display",
        "workbench",
    }:
        assert attribute_uses(path, "os", {"environ", "environb", "getenv"}) == []


@each_module
def test_only_the_edge_prints(path):
    if room(dotted(path)) not in {"kernel", "cli", "agent", "__main__"}:
        calls = (
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        )
        assert [c.lineno for c in calls if getattr(c.func, "id", None) == "print"] == []


@each_module
def test_no_drawers(path):
    words = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert not words & set(dotted(path).replace("_", ".").split("."))


@each_module
def test_modules_are_short(path):
    # An agent is one file by design: it is copied into an image as it is.
    if room(dotted(path)) != "agent":
        assert len(path.read_text().splitlines()) <= 400


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@each_module
def test_functions_are_short(path):
    def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
        return (body[-1].end_lineno or 0) - body[0].lineno + 1

    assert [node.name for node in functions(path) if length(node) > 60] == []


@each_module
def test_functions_take_few_arguments(path):
    def count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        named = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
        return len([name for name in named if name not in {"self", "cls"}])

    assert [node.name for node in functions(path) if count(node) > 6] == []


@each_module
def test_inner_init_files_hold_a_docstring_only(path):
    if path.name == "__init__.py" and path.parent != PACKAGE and room(dotted(path)) != "cli":
        body = ast.parse(path.read_text()).body
        assert len(body) == 1
        assert isinstance(body[0], ast.Expr)


def test_the_kernel_starts_without_heavy_imports():
    code = "import sys, container_kernel.kernel.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_no_folder_of_tests_is_passed_over(request):
    """Where one has a name that pytest's own list has, such as `build`, nobody would notice."""
    passed_over = request.config.getini("norecursedirs")
    tests = Path(__file__).parent
    folders = {
        part for path in tests.rglob("test_*.py") for part in path.relative_to(tests).parent.parts
    }
    assert "build" in folders
    assert not [name for name in folders if any(fnmatch(name, each) for each in passed_over)]
