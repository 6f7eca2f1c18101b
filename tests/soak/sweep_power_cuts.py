"""Power cuts: the file system of the store is shut down with its log not flushed, in a build.

In turn: at any time, right after something was said to be frozen, and right after a name was
given. On ext4 and, where their tools are installed, on xfs. Root only: nobody else may.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.soak.stores import Site, private_mounts, site

CASES, SAMPLE = 1000, 3
_SHUT_DOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN: _IOR('X', 125, __u32)
_NO_LOG_FLUSH = 2
_SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}


class Disk:
    """A file system in a file, mounted where the store of a site is."""

    def __init__(self, place: Site, kind: str) -> None:
        self._kind = kind
        self._image = place.folder / "image"
        self._mount = place.folder / "disk"
        self._mount.mkdir(exist_ok=True)
        place.home = self._mount / "home"

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(_SIZES[self._kind])
        quiet = "-f" if self._kind == "xfs" else "-F"
        subprocess.run(
            [f"mkfs.{self._kind}", "-q", quiet, str(self._image)], check=True, capture_output=True
        )

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self._mount)], check=True)

    def cut(self) -> None:
        """From now on nothing reaches the disk, and what was not there is not there."""
        fd = os.open(self._mount, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUT_DOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Also where killed processes, which go when they like, had it mounted."""
        deadline = time.monotonic() + 10
        while os.path.ismount(self._mount) or self._is_attached():
            subprocess.run(["umount", str(self._mount)], capture_output=True)
            assert time.monotonic() < deadline, f"the disk is still in use by {self._users()}"
            time.sleep(0.01)

    def _users(self) -> dict[str, str]:
        """Which processes have it mounted."""
        found = {}
        for table in Path("/proc").glob("[0-9]*/mountinfo"):
            with suppress(OSError):
                if str(self._mount) in table.read_text():
                    found[table.parent.name] = (table.parent / "cmdline").read_text()
        return found

    def _is_attached(self) -> bool:
        """Whether a loop device has it: what is mounted from it next would be the old one."""
        command = ["losetup", "--noheadings", "--associated", str(self._image)]
        return bool(subprocess.run(command, capture_output=True, check=True).stdout)


def kinds() -> list[str]:
    return [kind for kind in _SIZES if shutil.which(f"mkfs.{kind}")]


def why_not() -> str:
    """Why these cases cannot run here; nothing if they can."""
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"] or os.geteuid():
        return "only root can cut a file system's power"
    return "" if kinds() else "mkfs.ext4 is not installed"


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    private_mounts()
    with site() as place:
        disks = [Disk(place, kind) for kind in kinds()]
        start = time.monotonic()
        place.forget()
        place.build()
        build_s = time.monotonic() - start

        def case(number: int, chance: random.Random) -> None:
            disk = disks[number // 3 % len(disks)]
            disk.make()
            disk.mount()
            try:
                said = (_any_time, _after_an_ack, _after_a_name)[number % 3](
                    place, disk, chance, build_s
                )
                disk.unmount()
                disk.mount()
                place.check_after(said)
                if number % 3 == 2:
                    listed = place.run("image", "list", "--json").stdout
                    assert place.expected in listed, f"the name is gone: {listed}"
            finally:
                disk.unmount()

        yield case


def _any_time(place: Site, disk: Disk, chance: random.Random, build_s: float) -> str:
    return _cut_when(place, disk, lambda said: chance.uniform(0, build_s * 1.1))


def _after_an_ack(place: Site, disk: Disk, chance: random.Random, build_s: float) -> str:
    wanted = chance.randint(1, 3)

    def when(said: list[str]) -> float:
        deadline = time.monotonic() + 60
        while sum("✓" in line for line in said) < wanted and time.monotonic() < deadline:
            time.sleep(0.0005)
        return chance.choice((0.0, 0.001, 0.005, 0.02))

    return _cut_when(place, disk, when)


def _after_a_name(place: Site, disk: Disk, chance: random.Random, build_s: float) -> str:
    done = place.run("build", str(place.notebook))
    assert done.returncode == 0, done.stderr
    tagged = place.run("image", "tag", place.expected, "named:1")
    disk.cut()
    assert tagged.returncode == 0, tagged.stderr
    return done.stderr


def _cut_when(place: Site, disk: Disk, when: Callable[[list[str]], float]) -> str:
    said: list[str] = []
    process = subprocess.Popen(
        place.command("build", str(place.notebook)),
        env=place.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def read() -> None:
        said.extend(iter(process.stderr.readline, ""))

    with process:
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        time.sleep(when(said))
        disk.cut()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        reader.join(10)
    return "".join(said)
