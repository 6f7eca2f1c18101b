"""``python -m container_kernel.kernel -f CONNECTION_FILE``: what the kernelspec starts."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

from ..errors import HostError
from ..runtime import namespace


def _end_with_parent() -> None:
    """What the supervisor does elsewhere: end when whoever started us has ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    # Until all is loaded (`App.run`): what is loaded stays, and who starts the inner kernel
    # meanwhile does not wait for whoever loads.
    gc.disable()
    sys.setswitchinterval(0.0005)
    if sys.argv[1:] == ["--spare"]:
        from . import spare

        sys.argv[1:] = spare.wait()
    # Before anything starts a thread, and before the imports the first reply needs. Where it is
    # not allowed, there is a kernel all the same: it says so in every cell.
    try:
        PLACE: namespace.Namespace | HostError = namespace.enter(os.environ)
    except HostError as error:
        PLACE = error
        threading.Thread(target=_end_with_parent, daemon=True).start()
    from .start import main

    main(sys.argv[1:], PLACE)
