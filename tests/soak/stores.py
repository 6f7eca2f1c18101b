"""A store under attack: a small notebook that is built, and what must hold after anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from container_kernel import syscalls

CELLS = [
    "%base busybox",
    "%%build --net none\nmkdir /data; echo one > /data/a; ln -s a /data/b; chmod 1770 /data",
    "%env GREETING=hello\n%label who=me",
    "%%build --net none\nrm /data/b; echo two >> /data/a; mknod /data/p p; seq 99999 > /seq",
]
HEAL_S = 2.0
_HANGS_S = 600  # a sweep has what CPU others leave: minutes may pass
_ACKNOWLEDGED = re.compile(r"^✓ .*(sha256:[0-9a-f]{12}) ", re.MULTILINE)
_EXECUTABLE = str(Path(sys.executable).parent / "container-kernel")


class Site:
    """A notebook, a store's home for it, and the image it builds when nothing happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.notebook = folder / "n.ipynb"
        plain = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        cells = [plain | {"id": f"c{n}", "source": code} for n, code in enumerate(CELLS)]
        document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
        self.notebook.write_text(json.dumps(document))
        self.expected = self.build()["stages"]["main"]["digest"]
        self.slowest_heal_s = 0.0

    def command(self, *words: str) -> list[str]:
        return [_EXECUTABLE, *words]

    @property
    def environ(self) -> Mapping[str, str]:
        return {**os.environ, "CONTAINER_KERNEL_HOME": str(self.home)}

    def run(self, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [*before, *self.command(*words)]
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=_HANGS_S
        )

    def build(self) -> dict:
        """Build to the end; nothing may go wrong."""
        done = self.run("build", str(self.notebook), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def forget(self) -> None:
        """Begin with no store at all."""
        shutil.rmtree(self.home, ignore_errors=True)

    def check_after(self, said: str) -> None:
        """Whatever happened while a build said that: nothing acknowledged is lost, it goes on."""
        start = time.monotonic()
        listed = self.run("image", "list", "--json")
        took = time.monotonic() - start
        self.slowest_heal_s = max(self.slowest_heal_s, took)
        assert listed.returncode == 0, listed.stderr
        assert took < HEAL_S, f"the next start took {took:.1f} s"
        self.check_whole()
        again = self.build()
        stage = again["stages"]["main"]
        assert stage["digest"] == self.expected
        cached = {layer["diff_id"][:19] for layer in stage["layers"] if layer["cached"]}
        lost = set(_ACKNOWLEDGED.findall(said)) - cached
        assert not lost, f"acknowledged and gone: {lost}\n{said}"
        self.check_whole()
        for name in ("active", "trash", "content/ingest", "quarantine"):
            left = os.listdir(self.home / name)
            assert not left, f"{name}: {left}"

    def check_whole(self) -> None:
        """The full check finds no damage."""
        done = self.run("store", "check", "--full")
        assert done.returncode == 0, done.stdout + done.stderr


def private_mounts() -> None:
    """Let nobody else see what is mounted from now on; only root needs that and can do it."""
    if os.geteuid() == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)


def memory() -> str | None:
    """Where files lie in memory and an overlay can stand on them; None where that is nowhere."""
    try:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            os.setxattr(file.name, "user.probe", b"")
    except OSError:
        return None
    return "/dev/shm"


@contextmanager
def site(*, in_memory: bool = False) -> Iterator[Site]:
    """A site in a folder of its own; in memory, if that will do, where no disk is waited for."""
    place = memory() if in_memory else None
    with tempfile.TemporaryDirectory(
        prefix="ck-soak-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Site(Path(folder))
