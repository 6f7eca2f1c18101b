"""A disk that refuses: one call of a build fails, or the file system of the store is full.

The n-th call of a kind fails in every process and thread of the build, the OCI runtime's too. The
build ends soon and says why, without a traceback, or it gets along; afterwards the store is whole,
and a disk that works again gets the build to its end.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from container_kernel import syscalls
from tests.soak.stores import Site, private_mounts, site

CASES, SAMPLE = 400, 3
END_S = 30
STRACE = ("strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null")
# Calls and how often the busiest thread of a build makes them, at most.
FAULTS = (
    *(("fsync", error, 25) for error in ("EIO", "ENOSPC")),
    *(("syncfs", error, 4) for error in ("EIO", "ENOSPC")),
    *(("rename", error, 12) for error in ("EIO", "ENOSPC", "EDQUOT", "EPERM")),
    *(("mkdir", error, 40) for error in ("EIO", "ENOSPC", "EPERM")),
    *(("pwrite64", error, 40) for error in ("EIO", "ENOSPC", "EDQUOT")),
    *(("link,linkat,symlink,symlinkat", error, 12) for error in ("EIO", "ENOSPC", "EPERM")),
    *(("unlink,unlinkat,rmdir", error, 40) for error in ("EIO", "EPERM")),
    *(("ftruncate", "EIO", 8), ("utimensat", "EIO", 20), ("chmod,fchmod,chown", "EPERM", 20)),
    *(("mount", error, 12) for error in ("EPERM", "EIO")),
    *(("mknod,mknodat,setxattr,fsetxattr,lsetxattr", error, 5) for error in ("EIO", "EPERM")),
)
_PAGE = 4096


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    private_mounts()
    with site(in_memory=True) as place:

        def case(number: int, chance: random.Random) -> None:
            place.forget()
            if number % 4 == 3 and os.geteuid() == 0:
                fill_up(place, chance.randint(16, 1500) * _PAGE)
            else:
                call, error, most = FAULTS[number % len(FAULTS)]
                fail(place, f"{call}:error={error}:when={chance.randint(1, most)}")

        yield case


def fail(place: Site, fault: str) -> None:
    """Build while one call fails."""
    before = (*STRACE, "-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}")
    place.check_after(refused(place.run("build", str(place.notebook), before=before), fault))


def fill_up(place: Site, size: int) -> None:
    """Build on a disk that is too small for it; then it grows."""
    place.home.mkdir(mode=0o700)
    syscalls.mount("tmpfs", str(place.home), "tmpfs", 0, f"size={size},mode=700")
    try:
        said = refused(place.run("build", str(place.notebook)), f"{size} bytes")
        flags = syscalls.MS_REMOUNT
        syscalls.mount("tmpfs", str(place.home), "tmpfs", flags, "size=1g")
        place.check_after(said)
    finally:
        subprocess.run(["umount", "-l", str(place.home)], check=True)
        place.home.rmdir()


def refused(done: subprocess.CompletedProcess[str], fault: str) -> str:
    """What a build said that may have failed, in words that a user understands."""
    assert "Traceback" not in done.stderr, f"{fault}\n{done.stderr}"
    if done.returncode:
        assert done.returncode in (1, 3, 4), f"{fault}: exit code {done.returncode}\n{done.stderr}"
        assert "error: " in done.stderr, f"{fault}\n{done.stderr}"
        assert "hint: " in done.stderr, f"{fault}\n{done.stderr}"
    return done.stderr
