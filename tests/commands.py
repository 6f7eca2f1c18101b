"""The command line as its users call it: a process, its exit code, its two outputs."""

import json
import subprocess
import sys

STEPS = ("%base busybox", "%%build --name hello\necho hello > /hello", "%env A=1")
"""Cells that build a small image."""


def command(*words, cwd=None, env=None):
    argv = [sys.executable, "-m", "container_kernel", *map(str, words)]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def write_notebook(path, *sources):
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(sources)
    ]
    document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    path.write_text(json.dumps(document))
    return path
