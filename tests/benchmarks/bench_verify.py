"""``verify`` against a plain rebuild: the same notebook, locked, in a store that has nothing built.

Both find Debian's and Python's packages where an earlier build has left them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

from measure import Result, compare, report
from prepared import BASE, HOME, PLACE, command, notebook

CELLS = ("%apt python3 jq", "%pip numpy pandas", "%%build\necho {} | jq . > /made")
ROUNDS = 4


def results() -> Iterator[Result]:
    path = notebook("verify", *BASE, *CELLS)
    command("lock", str(path))

    def verify() -> float:
        start = time.perf_counter()
        command("verify", str(path))
        return time.perf_counter() - start

    def rebuild() -> float:
        fresh = PLACE / "fresh"
        fresh.mkdir()
        shutil.copytree(HOME / "downloads", fresh / "downloads", symlinks=True)
        shutil.copytree(HOME / "content", fresh / "content")
        start = time.perf_counter()
        command("build", "--locked", str(path), home=fresh)
        took = time.perf_counter() - start
        shutil.rmtree(fresh)
        return took

    yield compare(
        "verify, against a rebuild from nothing",
        verify,
        rebuild,
        at_most=1.3,
        rounds=ROUNDS,
        note="s, whole commands",
    )


if __name__ == "__main__":
    report(results())
