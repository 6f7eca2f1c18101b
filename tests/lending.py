"""Which ids the host lends root, as far as this process and what it starts can see."""

import atexit
import contextlib
import os
import tempfile
from collections.abc import Iterator

from container_kernel import syscalls
from container_kernel.runtime import subordinate

_FILES = ("/etc/subuid", "/etc/subgid")


def lend(rows: str) -> None:
    """Have both files be so, in this mount namespace."""
    handle, file = tempfile.mkstemp(prefix="ck-subids-")
    atexit.register(os.unlink, file)  # nothing can be mounted on a file that has no name
    with os.fdopen(handle, "w") as stream:
        stream.write(rows)
    for name in _FILES:
        syscalls.mount(file, name, "", syscalls.MS_BIND)
    subordinate.of_root.cache_clear()


@contextlib.contextmanager
def lent(rows: str) -> Iterator[None]:
    """The same, for as long as the block runs."""
    lend(rows)
    try:
        yield
    finally:
        for name in _FILES:
            syscalls.umount(name)
        subordinate.of_root.cache_clear()
