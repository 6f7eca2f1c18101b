"""Eight processes that write the index of one store at once: it stays whole, and nothing is lost.

Each writes rows of its own and names, opens the index anew now and then, and reads back what it
wrote. SQLite's own check finds nothing afterwards. All cases together take ten minutes.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from container_kernel.oci.digest import Digest
from container_kernel.store.index import Index
from tests.soak.stores import memory

CASES, SAMPLE = 600, 1
PROCESSES = 8
CASE_S = 1.0


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    with tempfile.TemporaryDirectory(prefix="ck-index-", dir=memory()) as folder:

        def case(number: int, chance: random.Random) -> None:
            write_at_once(Path(folder) / "index.db", chance)

        yield case


def write_at_once(path: Path, chance: random.Random) -> None:
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=write, args=(path, number, chance.getrandbits(32)))
        for number in range(PROCESSES)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(600)
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    index = Index(path)
    try:
        assert index.integrity() == []
        assert not [row for table in ("cache", "tags") for row in index.rows(table, whole=False)]
    finally:
        index.close()


def write(path: Path, number: int, seed: int) -> None:
    """Write for `CASE_S` seconds, or a little at least, and miss nothing of it."""
    chance, end = random.Random(seed), time.monotonic() + CASE_S
    index, written = Index(path), dict[str, Digest]()
    while time.monotonic() < end or len(written) < 3:
        name = f"{number}-{chance.randint(0, 40)}"
        digest = written[name] = Digest.of(chance.randbytes(8))
        index.remember_layer(name, digest, 0.1)
        if chance.random() < 0.2:
            index.set_tag(f"name{name}", digest)
            assert index.tag(f"name{name}") == digest
        if chance.random() < 0.1:
            index.close()
            index = Index(path)
    for name, digest in written.items():
        assert getattr(index.find_layer(name), "chain_id", None) == digest, name
    index.close()
