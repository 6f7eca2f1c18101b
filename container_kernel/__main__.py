"""``python -m container_kernel``: the same as the command ``container-kernel``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
