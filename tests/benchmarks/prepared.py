"""Images that the benchmarks work on, built once into a store of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

PLACE = Path(__file__).parents[2] / "build" / "bench"
HOME = PLACE / "home"
BASE = ("%base debian:bookworm",)
PYTHON = (*BASE, "%apt python3")
IPYKERNEL = (*PYTHON, "%pip ipykernel")


def use_own_store() -> None:
    """Everything that this process starts keeps its images apart from the user's."""
    os.environ["CONTAINER_KERNEL_HOME"] = str(HOME)


def command(*words: str, home: Path = HOME) -> str:
    """Run ``container-kernel WORD…``, with the store in ``home``; returns what it printed."""
    use_own_store()
    environ = {**os.environ, "CONTAINER_KERNEL_HOME": str(home)}
    argv = [sys.executable, "-m", "container_kernel", *words]
    PLACE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=PLACE, env=environ)
    if done.returncode:
        raise RuntimeError(f"{argv} exited with {done.returncode}:\n{done.stderr}")
    return done.stdout


def notebook(name: str, *cells: str) -> Path:
    """Write a notebook of code cells."""
    PLACE.mkdir(parents=True, exist_ok=True)
    path = PLACE / f"{name}.ipynb"
    code = [
        {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": cell}
        | {"outputs": [], "execution_count": None}
        for number, cell in enumerate(cells)
    ]
    spec = {"kernelspec": {"name": "container", "display_name": "Container"}}
    document = {"cells": code, "metadata": spec, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document))
    return path


@cache
def image(name: str, cells: tuple[str, ...]) -> str:
    """Build ``cells``, tag the image ``bench-NAME`` and return the tag."""
    tag = f"bench-{name}"
    stages = json.loads(command("build", str(notebook(name, *cells)), "--json"))["stages"]
    command("image", "tag", stages["main"]["digest"], tag)
    return tag


@cache
def frozen(tag: str) -> tuple[str, ...]:
    """The command line of the kernel that stands on the image ``tag``, as `install` writes it."""
    where = ("--image", tag, "--name", f"frozen-{tag}", "--prefix", str(PLACE / "prefix"))
    folder = Path(json.loads(command("install", *where, "--json"))["path"])
    return tuple(json.loads((folder / "kernel.json").read_text())["argv"])
