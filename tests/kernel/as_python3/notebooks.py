"""Notebooks run by nbclient and by papermill."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from .client import normal
from .table import own

KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}


def notebook(*cells):
    """A notebook; a cell is its code, or its code and tags."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": dict(KERNELSPEC)})
    for number, cell in enumerate(cells):
        code, *tags = [cell] if isinstance(cell, str) else cell
        metadata = {"tags": tags} if tags else {}
        made.cells.append(nbformat.v4.new_code_cell(code, id=f"cell-{number}", metadata=metadata))
    return made


def executed(folder, made, **options):
    """Run it; the notebook as it is left, and the error that ended it."""
    client = NotebookClient(
        made, timeout=30, resources={"metadata": {"path": str(folder)}}, **options
    )
    error = None
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as caught:
        fields = ("ename", "evalue", "args")
        error = [type(caught).__name__, *[getattr(caught, name, None) for name in fields]]
    return _plain(made, folder), normal(error, folder)


def _plain(made, folder):
    made = normal(dict(made), folder)
    info = made["metadata"].get("language_info", {})
    if info:  # the image's Python is another build
        info["version"] = info["version"].rpartition(".")[0]
    return made


@own
def nbclient_runs_a_notebook(folder):
    return executed(folder, notebook(
        "import sys; x = 2\nprint('out'); print('err', file=sys.stderr)", "x * 21",
        "display(x, display_id='d')", "update_display_data = 1\nfrom IPython.display import *\n"
        "update_display(3, display_id='d')", "print(1); clear_output(); print(2)", "", "x;",
    ))  # fmt: skip


@own
def nbclient_stops_at_an_error(folder):
    return executed(folder, notebook("1 / 0", "2"))


@own
def nbclient_goes_on_where_errors_are_allowed(folder):
    return executed(folder, notebook("1 / 0", "2"), allow_errors=True)


@own
def nbclient_heeds_a_tag_that_expects_an_error(folder):
    return executed(folder, notebook(("1 / 0", "raises-exception"), "2"))


@own
def nbclient_allows_errors_by_name(folder):
    return executed(folder, notebook("1 / 0", "2"), allow_error_names=["ZeroDivisionError"])


@own
def nbclient_interrupts_a_cell_that_takes_too_long(folder):
    made = notebook("import time; time.sleep(60)", "2")
    client = NotebookClient(
        made,
        timeout=5,
        interrupt_on_timeout=True,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return _plain(made, folder)


@own
def nbclient_gives_up_on_a_cell_that_takes_too_long(folder):
    made = notebook("import time; time.sleep(60)")
    client = NotebookClient(made, timeout=5, resources={"metadata": {"path": str(folder)}})
    try:
        client.execute()
    except CellTimeoutError as error:
        return type(error).__name__, "Timeout" in str(error)
    return None


@own
def nbclient_does_not_answer_input(folder):
    made, error = executed(folder, notebook("input('name? ')"))
    return error[:3], made["cells"][0]["outputs"][0]["ename"]


@own
def nbclient_tells_a_death(folder):
    return executed(folder, notebook("import os; os._exit(9)", "2"))[1][0]


def milled(folder, made, **options):
    """Papermill's own result, or its error."""
    source, result = folder / "in.ipynb", folder / "out.ipynb"
    nbformat.write(made, source)
    error = None
    try:
        papermill.execute_notebook(
            str(source), str(result), progress_bar=False, cwd=str(folder), **options
        )
    except PapermillExecutionError as caught:
        fields = ("exec_count", "source", "ename", "evalue", "cell_index", "traceback")
        error = {name: normal(getattr(caught, name), folder) for name in fields}
    left = _plain(nbformat.read(result, as_version=4), folder)
    return _without_times(left), error


def _without_times(made):
    def clear(about):
        for name in ("duration", "start_time", "end_time"):
            about.get("papermill", {}).pop(name, None)

    clear(made["metadata"])
    for cell in made["cells"]:
        clear(cell["metadata"])
        if "injected" in str(cell["metadata"].get("tags")) or "papermill" in cell.get("id", ""):
            cell["id"] = "INJECTED"
        if len(cell.get("id", "")) == 8 and not cell["id"].startswith("cell-"):
            cell["id"] = "INJECTED"  # a random one
    return made


@own
def papermill_runs_a_notebook(folder):
    return milled(folder, notebook("print(1)", "2", "display(3)"), kernel_name="python3")


@own
def papermill_injects_behind_the_tag(folder):
    made = notebook(("n = 1; s = 'a'", "parameters"), "n, s, d")
    return milled(folder, made, parameters={"n": 2, "s": "b", "d": {"k": [1.5, None, True]}})


@own
def papermill_injects_at_the_top_without_a_tag(folder):
    return milled(folder, notebook("n"), parameters={"n": 2})


@own
def papermill_tells_where_a_notebook_failed(folder):
    return milled(folder, notebook("1", "def f():\n    raise KeyError('k')\nf()", "3"))


@own
def papermills_command_runs_python3(folder):
    nbformat.write(notebook(("n = 1", "parameters"), "print(n)"), folder / "c.ipynb")
    command = [sys.executable, "-m", "papermill", "c.ipynb", "d.ipynb", "--kernel", "python3"]
    done = subprocess.run(
        [*command, "-p", "n", "5", "--no-progress-bar"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    made = _without_times(_plain(nbformat.read(folder / "d.ipynb", as_version=4), folder))
    return done.returncode, made
