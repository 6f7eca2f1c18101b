"""``FILE [NAME…]``: do behaviours with the kernel called python3; FILE gets what came of each."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import life
from .table import OWN, SHARED, names

MODULE = "def fail():\n    raise LookupError('in a file')\n\nprint('imported')\n"
SLOW_S = 2


class Run:
    """One kernel's way through the table."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        (self.folder / "of_the_folder.py").write_text(MODULE)
        self.found = {}

    def note(self, name, behave, given):
        """Do one; whether it came to its end."""
        start, is_done = time.perf_counter(), True
        try:
            self.found[name] = behave(given)
        except Exception:
            self.found[name], is_done = {"failed": traceback.format_exc()}, False
        if (took := time.perf_counter() - start) > SLOW_S:
            print(f"{took:5.1f} s  {name}", file=sys.stderr)
        return is_done

    def do(self, chosen):
        shared = [one for one in SHARED.items() if one[0] in chosen]
        while shared:  # what one that failed has left behind is not the next one's to find
            with life.kernel(self.folder) as client:
                while shared and self.note(*shared.pop(0), client):
                    continue
        for name, behave in OWN.items():
            if name in chosen:
                self.note(name, behave, self.folder)


def main(file, *only):
    with tempfile.TemporaryDirectory(prefix="as-python3-", ignore_cleanup_errors=True) as folder:
        run = Run(folder)
        run.do(only or names())
    Path(file).write_text(json.dumps(run.found))  # kernels may print to stdout


main(*sys.argv[1:])
