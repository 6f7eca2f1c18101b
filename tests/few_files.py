"""What this process has open, and a process that may open few files more."""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def limited() -> Iterator[Callable[[int], None]]:
    """A function that lets this process open so many files more; until the block ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def few_files(more: int) -> None:
        already = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (already + more, before[1]))

    try:
        yield few_files
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def opened() -> set[tuple[str, str]]:
    """What this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return {(fd, link) for fd, link in found if not link.endswith("/fd")}
