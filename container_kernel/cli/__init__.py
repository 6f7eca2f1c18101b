"""The command ``container-kernel``.

Results go to stdout, as text or with ``--json`` as one JSON object; progress and errors go to
stderr. The exit code says who can act: 0 done, 1 the user's cell or command failed, 2 wrong use,
3 this host cannot, 4 the store is damaged or full, or what takes standard output is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import ContainerKernelError, out_of_files
from .arguments import parser
from .report import Report
from .streams import open_closed

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    open_closed()
    argv = sys.argv[1:] if argv is None else list(argv)
    before = argv[: argv.index("--")] if "--" in argv else argv
    report = Report("--json" in before)
    try:
        options = parser().parse_args(argv)
        code: int = options.command(options, report)
        return code
    except ContainerKernelError as error:
        report.error(error)
        return error.process_exit_code
    except KeyboardInterrupt:
        report.note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except OSError as error:
        host_error = out_of_files(error)
        if host_error is None:
            raise
        report.error(host_error)
        return host_error.process_exit_code
