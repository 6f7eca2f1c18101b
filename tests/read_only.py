"""A folder that nobody can write to, whoever they are: a mount of it on itself."""

import errno

from container_kernel import syscalls
from tests.kernel.conftest import until


def mount_read_only(folder):
    """Once nobody tidies up in there any more."""
    place = str(folder)
    syscalls.mount(place, place, "", syscalls.MS_BIND)
    until(lambda: _is_read_only(place))


def _is_read_only(place):
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
    try:
        syscalls.mount("none", place, "", flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
