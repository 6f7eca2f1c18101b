"""Terminal: the user's terminal, lent to a container without giving it away.

The container never gets the terminal itself, into which it could push input that the user's own
shell would run (TIOCSTI); it gets a pseudo-terminal of the host, made for it, and bytes are carried
across. The OCI runtime makes none (``terminal`` in the runtime spec opens paths inside the
container, which went wrong before).
"""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Descriptor 0 is the pseudo-terminal: everything else is sent there too. `setsid -c` makes it the
# controlling one, for job control and Ctrl-C; images without it do without. No exec before it: the
# leader of a process group cannot begin a session without another fork, which nobody would await.
_BEGIN = (
    "exec >&0 2>&0; export TERM={term}; "
    'if command -v setsid >/dev/null; then setsid -c "$@"; exit $?; fi; exec "$@"'
)
_SHELL = "if command -v bash >/dev/null; then exec bash -i; fi; exec sh -i"


def command(words: Sequence[str]) -> list[str]:
    """What to run in the container so that ``words`` (or a shell) has the terminal."""
    term = os.environ.get("TERM", "dumb")
    begin = _BEGIN.format(term=term if term.replace("-", "").isalnum() else "dumb")
    return ["sh", "-c", begin, "sh", *(words or ("sh", "-c", _SHELL))]


class Terminal:
    """A pseudo-terminal that looks like the one on stdin."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self._resize()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let the user's keys through one by one; give the terminal back as it was."""
        before = termios.tcgetattr(sys.stdin)
        signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        tty.setraw(sys.stdin)
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def keys(self) -> None:
        """Carry what was typed inside."""
        os.write(self.master, os.read(sys.stdin.fileno(), 4096))

    def screen(self) -> bool:
        """Carry what was drawn outside; False when nothing more will come."""
        try:
            drawn = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        sys.stdout.buffer.write(drawn)
        sys.stdout.buffer.flush()
        return bool(drawn)

    def close_slave(self) -> None:
        """The container has it now."""
        os.close(self.slave)

    def _resize(self) -> None:
        try:
            size = fcntl.ioctl(sys.stdin, termios.TIOCGWINSZ, bytes(8))
        except OSError:
            size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)
