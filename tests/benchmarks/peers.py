"""The tools that people would use instead, where this machine has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 30


class NotHere(Exception):
    """The peer cannot be used on this machine; the text says why."""


def timed(command: list[str], **more: object) -> float:
    """Seconds that a command takes; what it prints is shown only if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return took


@dataclass(frozen=True)
class Docker:
    """A docker daemon of our own, with a base image loaded."""

    command: tuple[str, ...]
    base: str = "bench-base"

    def build(self, dockerfile: str, folder: Path, *, cached: bool = True) -> float:
        (folder / "Dockerfile").write_text(dockerfile)
        no_cache = [] if cached else ["--no-cache"]
        return timed(
            [*self.command, "build", "--quiet", "--network=none", *no_cache, str(folder)],
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
        )

    def run(self, *argv: str) -> float:
        return timed([*self.command, "run", "--rm", "--network=none", self.base, *argv])


@contextmanager
def docker(rootfs: Path) -> Iterator[Docker]:
    """Start a daemon whose only image is ``rootfs``; stop it at the end.

    Raises:
        NotHere: there is no daemon, we are not root, or it does not start.
    """
    client, daemon = Path("/usr/bin/docker"), shutil.which("dockerd")
    if not client.exists() or daemon is None:
        raise NotHere("dockerd is not installed")
    if os.geteuid():
        raise NotHere("dockerd needs root")
    with tempfile.TemporaryDirectory(prefix="bench-docker-") as place:
        socket = f"unix://{place}/docker.sock"
        command = [
            *(daemon, "--iptables=false", "--ip6tables=false", "--bridge=none", "--host", socket),
            *("--data-root", f"{place}/data", "--exec-root", f"{place}/exec"),
            *("--pidfile", f"{place}/pid"),
        ]
        with (Path(place) / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        peer = Docker((str(client), "--host", socket))
        try:
            wait_until_up(peer, server)
            with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
                subprocess.run([*peer.command, "import", "-", peer.base], stdin=tar.stdout,
                               stdout=subprocess.DEVNULL, check=True)  # fmt: skip
            yield peer
        finally:
            server.terminate()
            server.wait()


def wait_until_up(peer: Docker, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        asked = subprocess.run([*peer.command, "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return
        time.sleep(0.1)
    raise NotHere("dockerd does not start here")


@dataclass(frozen=True)
class Buildah:
    """buildah with a storage of its own and a base image in it."""

    command: tuple[str, ...]
    base: str = "localhost/bench-base"

    def build(self, dockerfile: str, folder: Path, *, cached: bool = True) -> float:
        (folder / "Dockerfile").write_text(dockerfile)
        no_cache = [] if cached else ["--no-cache"]
        # As fast as it gets: layers as ours has them, no network to set up.
        return timed([
            *(*self.command, "build", "--quiet", "--layers", *no_cache, "--pull-never"),
            *("--network=none", "--isolation=oci", "--ulimit=nofile=1024:1024"),
            # crun refuses some cgroup set-ups that runc takes.
            *("--runtime", shutil.which("runc") or "crun", str(folder)),
        ])  # fmt: skip


@contextmanager
def buildah(rootfs: Path) -> Iterator[Buildah]:
    """A buildah whose only image is ``rootfs``.

    Raises:
        NotHere: it is not installed, or cannot make that image.
    """
    program = shutil.which("buildah")
    if program is None:
        raise NotHere("buildah is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-buildah-", ignore_cleanup_errors=True) as place:
        storage = ("--root", f"{place}/root", "--runroot", f"{place}/run")
        peer = Buildah((program, *storage))
        try:
            timed([*peer.command, "from", "--name=base", "scratch"])
            timed([*peer.command, "copy", "base", str(rootfs), "/"])
            timed([*peer.command, "commit", "base", peer.base])
        except RuntimeError as error:
            raise NotHere(f"buildah does not work here: {error}") from error
        try:
            yield peer
        finally:
            subprocess.run([*peer.command, "rm", "--all"], capture_output=True, check=False)
