"""``python -m container_kernel.kernel -f CONNECTION_FILE``: what the kernelspec starts."""

from __future__ import annotations

import os
import sys

from ..errors import HostError
from ..runtime import namespace

if __name__ == "__main__":
    # Before anything starts a thread, and before the imports the first reply needs. Where it is
    # not allowed, there is a kernel all the same: it says so in every cell.
    try:
        PLACE: namespace.Namespace | HostError = namespace.enter(os.environ)
    except HostError as error:
        PLACE = error
    from .start import main

    main(sys.argv[1:], PLACE)
