"""A frozen image's kernel under the name ``python3`` does what ipykernel does there.

One program, ``tests.kernel.as_python3``, is a client of both: it is run twice at a time, each time
with another kernel called python3, and a test says that one behaviour came out the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from tests.kernel.as_python3.table import names
from tests.kernel.conftest import ROOT

pytestmark = [pytest.mark.privileged, pytest.mark.slow]
BUILD = ("%base debian:bookworm", "%apt python3", "%pip ipykernel matplotlib")
DEATH = "a death inside is told in the cell, with its reason; the next cell has a new session"
DIFFERENT = {
    "a_death_ends_the_kernel": DEATH,
    "quit_ends_the_kernel": DEATH,
    "nbclient_tells_a_death": DEATH,
    "env_is_set": "it sets the image's environment, and needs a cell of its own",
    "pip_is_pip": "it is a step of the image",
}


def command(*words, cwd):
    argv = [sys.executable, "-m", "container_kernel", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Where Jupyter finds our kernel under the name; its image is where other tests built it."""
    folder = tmp_path_factory.mktemp("python3")
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**cell, "id": f"c{n}", "source": code} for n, code in enumerate(BUILD)]
    document = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    document["metadata"]["kernelspec"] = {"name": "container", "display_name": "Container"}
    (folder / "image.ipynb").write_text(json.dumps(document))
    built = command("build", "image.ipynb", "--json", cwd=folder)["stages"]["main"]
    where = ("--image", built["digest"], "--name", "python3", "--prefix", folder)
    command("install", *where, "--json", cwd=folder)
    yield folder
    command("image", "rm", "kernels/python3:latest", "--json", cwd=folder)


def start(folder, **environ):
    """The table's program, on its way.

    ipykernel does not capture what children print where it sees that pytest runs.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.kernel.as_python3", folder / "found.json"],
            cwd=ROOT,
            env={**inherited, "IPYTHONDIR": str(folder / "ipython"), **environ},
            stdout=log,
            stderr=log,
        )


@pytest.fixture(scope="module")
def found(prefix, tmp_path_factory):
    """What came of each behaviour: with ipykernel, and with ours."""
    theirs, ours = tmp_path_factory.mktemp("ipykernel"), tmp_path_factory.mktemp("ours")
    with tempfile.TemporaryDirectory(prefix="ck-run-") as runtime:
        path = str(prefix / "share" / "jupyter")
        running = [
            start(theirs, JUPYTER_PATH=""),
            start(ours, JUPYTER_PATH=path, XDG_RUNTIME_DIR=runtime),
        ]
        try:
            for process, folder in zip(running, (theirs, ours), strict=True):
                assert process.wait(timeout=200) == 0, (folder / "log").read_text()
        finally:
            for process in running:
                process.kill()
                process.wait()
    return [json.loads((folder / "found.json").read_text()) for folder in (theirs, ours)]


def cases():
    for name in names():
        why = DIFFERENT.get(name)
        yield pytest.param(name, marks=[pytest.mark.xfail(reason=why)] if why else [])


@pytest.mark.parametrize("name", cases())
def test_ours_does_what_ipykernel_does(found, name):
    theirs, ours = (side[name] for side in found)
    assert not (isinstance(theirs, dict) and "failed" in theirs), theirs["failed"]
    assert ours == theirs
