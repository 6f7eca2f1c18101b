"""``FILE [NAME…]``: do behaviours with the kernel called python3; what came of each goes to FILE."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import cells, life, notebooks, requests, sessions  # noqa: F401
from .table import OWN, SHARED

MODULE = "def fail():\n    raise LookupError('in a file')\n\nprint('imported')\n"


def main(file, *names):
    folder = Path(tempfile.mkdtemp(prefix="as-python3-")).resolve()
    (folder / "of_the_folder.py").write_text(MODULE)
    found = {}

    def note(name, behave, given):
        start = time.perf_counter()
        try:
            found[name] = behave(given)
        except Exception:
            found[name] = {"failed": traceback.format_exc()}
        took = time.perf_counter() - start
        if took > 2:
            print(f"{took:5.1f} s  {name}", file=sys.stderr)

    def wanted(table):
        return [one for one in table.items() if not names or one[0] in names]

    with life.kernel(folder) as client:
        for name, behave in wanted(SHARED):
            note(name, behave, client)
    for name, behave in wanted(OWN):
        note(name, behave, folder)
    Path(file).write_text(json.dumps(found))  # kernels may print to stdout


main(*sys.argv[1:])
