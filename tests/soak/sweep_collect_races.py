"""A collector beside builders, taggers, deleters, pullers: what is needed can always be read.

A case is a store with eight processes that each do whatever they like, and remember what must be
there: what they named, and what they found since they opened the store. A ninth collects as hard
as it can, for `ROUNDS` rounds; now and then one of the eight is killed. None of them gets far ahead
of the collector, so that a round means as much on a busy machine.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from container_kernel.oci.changeset import tree_digest
from container_kernel.oci.digest import Digest
from container_kernel.oci.idmap import IdMap
from container_kernel.oci.spec import Descriptor, ImageConfig, MediaType
from container_kernel.store.check import check
from container_kernel.store.collect import collect
from container_kernel.store.layer import Snapshot
from container_kernel.store.store import Store
from tests.soak.stores import memory

CASES, SAMPLE = 400, 1
ROUNDS = 25
WORKERS = 8
DEEDS = 6  # of each, in a round
_OVER = 1 << 30
_NEVER_S = 1e-6  # older than that is everything


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    def case(number: int, chance: random.Random) -> None:
        home = Path(
            tempfile.mkdtemp(prefix="ck-races-", dir=memory())
        )  # disks would slow the races
        try:
            race(home, chance)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    yield case


def race(home: Path, chance: random.Random) -> None:
    context = multiprocessing.get_context("fork")
    # Not an Event: a process that is killed while it looks at one leaves it locked.
    rounds = context.Value("i", 1, lock=False)
    store = open_store(home)

    def start(number: int) -> multiprocessing.process.BaseProcess:
        seed = chance.getrandbits(32)
        process = context.Process(target=work, args=(home, number, seed, rounds))
        process.start()
        return process

    workers = [start(number) for number in range(WORKERS)]
    try:
        for number in range(ROUNDS):
            wish = {"older_than_s": _NEVER_S} if number % 2 else {"max_bytes": 1}
            collect(store, **(wish if number % 5 else {}))
            rounds.value += 1
            if chance.random() < 0.05:
                victim = chance.randrange(WORKERS)
                workers[victim].kill()
                workers[victim].join()
                workers[victim] = start(victim)
    finally:
        rounds.value = _OVER
        for worker in workers:
            worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * WORKERS
    found = [one for one in check(store, full=True) if one.weight == "damage"]
    assert not found, found
    store.close()


def open_store(home: Path) -> Store:
    return Store(home, IdMap.identity(), userxattr=False)


def work(home: Path, number: int, seed: int, rounds: Synchronized[int]) -> None:
    os.nice(5)  # the collector is to have its turns
    worker, first = Worker(home, number, random.Random(seed)), rounds.value
    for deed in itertools.count():
        while deed >= (rounds.value - first + 1) * DEEDS:
            time.sleep(0.001)
        if rounds.value == _OVER:
            break
        worker.step()
    worker.verify_all()


class Worker:
    """One process and what it may rely on."""

    def __init__(self, home: Path, number: int, chance: random.Random) -> None:
        self._home = home
        self._number = number
        self._chance = chance
        self._open()

    def _open(self) -> None:
        self.store = open_store(self._home)
        self.images: list[Digest] = []
        self.blobs: list[Digest] = []

    def step(self) -> None:
        deeds = (self.build, self.build, self.name, self.unname, self.find, self.download)
        self._chance.choice((*deeds, self.verify, self.verify, self.restart))()

    def build(self) -> None:
        """Freeze or find a chain of layers that others build too, and make an image of it."""
        parent: Snapshot | None = None
        diff_ids, blobs = [], []
        for depth in range(self._chance.randint(1, 4)):
            parent = self._layer(parent, f"{depth}-{self._chance.randint(0, 3)}")
            diff_ids.append(parent.diff_id)
            blobs.append(Descriptor(MediaType.LAYER, parent.diff_id, parent.size))
        config = ImageConfig("amd64", "linux", diff_ids=tuple(diff_ids))
        self.images.append(self.store.put_image(config, blobs))

    def _layer(self, parent: Snapshot | None, text: str) -> Snapshot:
        store, above = self.store, parent.chain_id if parent else None
        key = Digest.of(f"{above} {text}".encode()).hex
        hit = store.index.find_layer(key)
        found = store.snapshots.get(hit.chain_id) if hit else None
        if found:
            return found
        active = store.snapshots.prepare(above)
        file = active.upper / "file"
        file.write_text(text * 1000)
        os.utime(file, (0, 0))
        diff_id, size = tree_digest(active.upper, idmap=store.idmap, userxattr=False)
        made = store.snapshots.commit(active, diff_id, size, text, synced=True)
        store.remember_layer(key, made, 0.1)
        return made

    def name(self) -> None:
        if self.images:
            self.store.tags.set(self._name(), self._chance.choice(self.images))

    def unname(self) -> None:
        self.store.tags.remove(self._name())

    def _name(self) -> str:
        return f"worker{self._number}:{self._chance.randint(0, 2)}"

    def find(self) -> None:
        """What somebody named is there, unless the name went elsewhere meanwhile."""
        for name, digest in self.store.tags.list().items():
            if self.store.find_image(name) == digest and self.store.content.has(digest):
                self.images.append(digest)

    def download(self) -> None:
        data = f"download {self._chance.randint(0, 5)}".encode()
        digest = Digest.of(data)
        if not self.store.content.has(digest):
            self.store.content.put(data)
        self.blobs.append(digest)

    def verify(self) -> None:
        own = [
            d for n, d in self.store.tags.list().items() if n.startswith(f"worker{self._number}:")
        ]
        for digest in (*own, *self.images[-3:]):
            self._read_image(digest)
        for digest in self.blobs[-3:]:
            self.store.content.verify(digest)

    def verify_all(self) -> None:
        for digest in self.images:
            self._read_image(digest)
        for digest in self.blobs:
            self.store.content.verify(digest)

    def _read_image(self, digest: Digest) -> None:
        config = self.store.image_config(self.store.manifest(digest))
        chain = self.store.snapshots.chain(self.store.image_chain(config))
        for layer in chain:
            assert (layer.path / "file").stat().st_size > 0

    def restart(self) -> None:
        if self._chance.random() < 0.3:
            self.verify_all()
            self.store.close()
            self._open()
