"""Compiled: what crun made of a system call filter once, it is given at the next start.

To compile one takes 4 ms of the 15 that crun takes to start a container. It leaves the program in
the state of the container, and takes one in place of the rules: annotation
``run.oci.seccomp_bpf_data``, see crun(1). (Younger cruns keep them by themselves.) Ours are kept
beside the run folders, where nobody else can write, under a name made of all that they depend on.
"""

from __future__ import annotations

import json
import os
from binascii import a2b_base64, b2a_base64
from contextlib import suppress
from pathlib import Path

from ..oci.digest import Digest
from ..record import replace
from . import profile
from .bundle import ContainerSpec

_ANNOTATION = "run.oci.seccomp_bpf_data"


class CompiledFilters:
    """The filters that ``runtime``, a crun, has compiled on this host; they lie in ``folder``."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._folder = folder
        self._runtime = runtime
        self._known: dict[bool, str] = {}

    def put_on(self, spec: ContainerSpec) -> ContainerSpec:
        """The same, with its filter compiled where that has been done before."""
        if not spec.has_seccomp:
            return spec
        data = self._known.get(spec.pretend_ownership) or self._read(spec)
        return replace(spec, annotations={_ANNOTATION: data}) if data else spec

    def learn(self, spec: ContainerSpec, state: Path) -> None:
        """Keep what crun has left in ``state`` of a container that was started."""
        if not spec.has_seccomp or spec.annotations:
            return
        with suppress(OSError):  # then the next one is compiled, too
            program = (state / "seccomp.bpf").read_bytes()
            if program:
                data = b2a_base64(program, newline=False).decode()
                self._known[spec.pretend_ownership] = data
                self._write(self._path(spec), f"{Digest.of(program)} {data}")

    def _read(self, spec: ContainerSpec) -> str | None:
        """What a process before us has kept; None if it is not whole (a host may have crashed)."""
        try:
            digest, data = self._path(spec).read_text().split()
            if str(Digest.of(a2b_base64(data))) != digest:
                return None
        except (OSError, ValueError):
            return None
        self._known[spec.pretend_ownership] = data
        return data

    def _path(self, spec: ContainerSpec) -> Path:
        rules = profile.seccomp(pretend_ownership=spec.pretend_ownership)
        host, program = os.uname(), os.stat(self._runtime)
        crun = (str(self._runtime), program.st_ino, program.st_size, program.st_mtime_ns)
        depends_on = json.dumps([rules, host.release, host.version, host.machine, crun])
        return self._folder / f"filter.{Digest.of(depends_on.encode()).hex[:32]}"

    def _write(self, path: Path, text: str) -> None:
        """Whole or not at all, and nothing is left of a process that is killed meanwhile."""
        fd = os.open(self._folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            path.unlink(missing_ok=True)  # what could not be read
            # With a folder, Python calls linkat(2), which alone can follow.
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
