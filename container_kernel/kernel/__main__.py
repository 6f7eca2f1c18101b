"""``python -m container_kernel.kernel -f CONNECTION_FILE``: what the kernelspec starts."""

from __future__ import annotations

import os
import sys

from ..runtime import namespace

if __name__ == "__main__":
    # Before anything starts a thread, and before the imports the first reply needs.
    PLACE = namespace.enter(os.environ)
    from .start import main

    main(sys.argv[1:], PLACE)
