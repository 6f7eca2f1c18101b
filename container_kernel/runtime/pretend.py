"""Run a program whose changes of owner "succeed" without effect: ``python -m … PROGRAM ARG…``.

For tools of the host that insist on being root, where the host gives the user one id only. The
filter is the one build steps get there (`profile.PRETENDED`), loaded with libseccomp, which every
OCI runtime brings along. Device nodes are not pretended: tools look whether one was made.
"""

from __future__ import annotations

import ctypes
import os
import sys

from .profile import PRETENDED

_ALLOW = 0x7FFF0000
_ERRNO_0 = 0x00050000
_NR_ERROR = -1


def load_filter() -> None:
    """Let this process and its children pretend.

    Raises:
        OSError: there is no libseccomp, or the host kernel refuses the filter.
    """
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    for name in PRETENDED:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _NR_ERROR and not name.startswith("mknod"):
            library.seccomp_rule_add(context, ctypes.c_uint32(_ERRNO_0), ctypes.c_int(number), 0)
    failed = library.seccomp_load(context)
    if failed:
        raise OSError(-failed, os.strerror(-failed), "seccomp_load")


def wrap(argv: list[str]) -> list[str]:
    """The command line that runs ``argv`` under the filter."""
    return [sys.executable, "-P", "-m", __name__, *argv]


if __name__ == "__main__":
    load_filter()
    os.execv(sys.argv[1], sys.argv[1:])
