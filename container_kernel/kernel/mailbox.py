"""The one folder both sides see: what the host puts there, what it finds there.

The container can do anything to its content at any time. So names are fresh for every start, files
are made with ``O_EXCL``, FIFOs are opened once and never by name again, and a socket is connected
to through the inode that was checked (threats: an inner kernel that puts a link to another socket
of the host in its place).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Mailbox:
    """A folder of the host, 0700, mounted in the container at ``mount``."""

    def __init__(self, folder: Path, mount: str) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._mount = mount
        self._prefix = os.urandom(4).hex()

    def inside(self, name: str) -> str:
        """The path of ``name`` as the container sees it."""
        return f"{self._mount}/{self._prefix}-{name}"

    def write(self, name: str, data: bytes) -> str:
        """Put a file there; its path inside."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        fd = os.open(f"{self._prefix}-{name}", flags, 0o600, dir_fd=self._fd)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            self._give_away(fd)
        return self.inside(name)

    def take(self, name: str, limit: int) -> bytes:
        """What the container wrote as ``name``, which is then gone.

        Raises:
            OSError: there is no such file, or it is none, or larger than ``limit`` bytes.
        """
        own = f"{self._prefix}-{name}"
        fd = os.open(own, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("what the container left is no file")
        with os.fdopen(fd, "rb") as file:
            data = file.read(limit + 1)
        self.remove(name)
        if len(data) > limit:
            raise OSError(f"it is larger than {limit >> 20} MiB")
        return data

    def remove(self, name: str) -> None:
        """Take away what `write` put there; harmless when it is gone."""
        try:
            os.unlink(f"{self._prefix}-{name}", dir_fd=self._fd)
        except OSError:
            pass

    def fifo(self, name: str) -> int:
        """Make a FIFO; its file descriptor, which never sees an end of file."""
        own = f"{self._prefix}-{name}"
        os.mkfifo(own, 0o600, dir_fd=self._fd)
        fd = os.open(own, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._fd)
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"not a FIFO: {own}")
        self._give_away(fd)
        return fd

    def _give_away(self, fd: int) -> None:
        """To the folder's owner, who is root in the container."""
        owner = os.fstat(self._fd)
        if os.fstat(fd).st_uid != owner.st_uid:
            os.fchown(fd, owner.st_uid, owner.st_gid)

    def socket(self, name: str) -> int | None:
        """A descriptor of the socket ``name``; None while there is none.

        Raises:
            OSError: something else is there.
        """
        own = f"{self._prefix}-{name}"
        try:
            fd = os.open(own, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"what is at {self.inside(name)} in the container is no socket")
        return fd

    def close(self) -> None:
        """Forget the folder, and what this start put there."""
        for name in os.listdir(self._fd):
            if name.startswith(self._prefix):
                try:
                    os.unlink(name, dir_fd=self._fd)
                except OSError:
                    continue
        os.close(self._fd)
