"""Containers and build steps on images that strangers made."""

from __future__ import annotations

import os
from contextlib import contextmanager

from container_kernel.build.cancel import Cancel
from container_kernel.build.events import Watch
from container_kernel.build.execute import Command, freeze, run_and_freeze
from container_kernel.oci.changeset import Clamp
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.live import Live
from container_kernel.runtime.network import NONE
from container_kernel.runtime.relaxed import Relaxed
from container_kernel.runtime.wish import Wish
from tests.runtime.facts import read

FILE, FIFO, MISSING, LOOP = "file", "fifo", "missing", "loop"


class Hostile:
    """Containers and build steps on images with a last layer that a stranger made."""

    def __init__(self, place, prober) -> None:
        self.place, self._prober = place, prober
        self.image = prober.workbench.image(on_event=lambda _: None, cancel=Cancel())

    def layer(self, paths):
        """A layer where each path is a link to its value, or what `FILE` and its like say."""
        store = self.place.store
        active = store.snapshots.prepare(self.image.chain_id)
        for path, target in paths.items():
            here = active.upper / path.lstrip("/")
            here.parent.mkdir(parents=True, exist_ok=True)
            if target == MISSING:
                continue
            if target == FILE:
                here.write_text("x")
            elif target == FIFO:
                os.mkfifo(here)
            else:
                here.symlink_to(path if target == LOOP else target)
        return freeze(store, active, "hostile", Clamp(0, 0)).chain_id

    @contextmanager
    def live(self, paths, config=None, **relaxed):
        """A container context on such an image."""
        chain = self.layer(paths) if paths else self.image.chain_id
        wish = Wish(limits=Limits(pids=200), relaxed=Relaxed(**relaxed))
        folder = self._prober.folder
        host, store = self.place.host, self.place.store
        live = Live(host, store, chain, config or self.image.config, folder, wish)
        try:
            yield live
        finally:
            live.close()

    def build(self, paths, script, **command):
        """What a build step on such an image says."""
        said = []
        watch = Watch(said.append, Cancel(), lambda _: None)
        step = Command(script=script, network=NONE, **command)
        chain = self.layer(paths) if paths else self.image.chain_id
        run_and_freeze(self.place, chain, step, title="hostile", epoch=0, watch=watch)
        return "".join(said)


def say(live, script, **options):
    """What a shell script says in a container."""
    return read(live.start(["/bin/sh", "-c", f"exec 2>&1; {script}"], **options))
