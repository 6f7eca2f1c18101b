"""Eight processes build the same notebook in a store that has nothing of it.

All succeed with the same image, and each step ran once. In every other case one of the eight is
killed on the way; then the others do without it.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.soak.stores import Site, site

CASES, SAMPLE = 200, 1
PROCESSES = 8
_RAN = re.compile(r"^✓ (\[\w+\]) .*(?<!cached)(?<!set)$", re.MULTILINE)


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    with site(in_memory=True) as place:

        def case(number: int, chance: random.Random) -> None:
            place.forget()
            kill_after_s = chance.uniform(0, 1.5) if number % 2 else None
            said = build_at_once(place, kill_after_s)
            ran = [step for text in said for step in _RAN.findall(text)]
            if kill_after_s is None:
                assert sorted(ran) == ["[1]", "[4]", "[base]"], ran
            place.check_after("".join(said))

        yield case


def build_at_once(place: Site, kill_after_s: float | None) -> list[str]:
    """What the builders that were let live said."""
    command = place.command("build", str(place.notebook))
    processes = [
        subprocess.Popen(
            command,
            env=place.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(PROCESSES)
    ]
    if kill_after_s is not None:
        victim, *processes = processes
        try:
            victim.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
    said = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert place.expected in out
        said.append(err)
    return said
