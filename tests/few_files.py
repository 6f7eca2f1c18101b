"""What this process has open, and a process that may open few files more."""

import contextlib
import itertools
import os
import resource
from collections.abc import Callable, Iterator

from container_kernel.errors import ContainerKernelError, out_of_files


@contextlib.contextmanager
def limited() -> Iterator[Callable[[int], None]]:
    """A function that lets this process open so many files more; until the block ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def few_files(more: int) -> None:
        """The limit is one on numbers, of which some are free between those in use."""
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        listed = os.listdir("/proc/self/fd")  # which has a number itself, for as long as it takes
        used = {int(fd) for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}
        free = (number for number in itertools.count() if number not in used)
        limit = next(itertools.islice(free, more, None))
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))

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


def refusal(act: Callable[[], object]) -> str:
    """What a cell or a command says of ``act``, whichever call found no file left; "" if it works.

    Both put what comes up to them into words: not every call on the way does so itself.
    """
    try:
        act()
    except (ContainerKernelError, OSError) as found:
        error = out_of_files(found) or found
        if not isinstance(error, ContainerKernelError):
            raise
        return f"{error.message}\n{error.hint}"
    return ""
