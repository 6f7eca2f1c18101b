"""Rebase: a running container's root file system is exchanged for one with more layers.

The new root is a second overlay with the *same* upper directory, so that what was written stays
where it is, however often this is done. While the container's processes stand still, it is brought
into their mount namespace, everything that was mounted on the old root (/proc, /dev, /work, …) is
moved over, and pivot_root(2) gives it to every process whose root the old one was.

What a process has open stays as it was opened. That is right for files: the one on disk is the
same through either overlay, for reading and for writing, and what a new layer replaces (a library
in use) lives on as long as somebody has it open. It is not right where two processes must meet at
a path: a lock, a listening socket, a FIFO are found through the overlay they were made in only.
Nor for a working directory below the root. Whoever holds such a thing is named, and nothing is
done (`check`). The old root can be written to no more, if nobody has a file open for writing.

Rejected: the old upper as one more layer below a new one. Its files that are open for writing would
be invisible once they are changed through the new one, and an IPython session always has one
(its history); and the layers would grow with every rebase.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from .. import syscalls
from ..errors import HostError, RebaseRefused
from ..oci.image_config import ImageConfig
from .overlay import with_own_directory

_LISTENS = 0x10000
_DATAGRAM = "0002"


# ---------------------------------------------------------------- is it safe?


def changed_setting(old: ImageConfig, new: ImageConfig) -> str | None:
    """What a process that runs under ``old`` has been given and is another in ``new``, in words."""
    settings = {
        "the environment": (old.env, new.env),
        "the user": (old.user, new.user),
        "the working directory": (old.workdir, new.workdir),
    }
    return next((name for name, (one, other) in settings.items() if one != other), None)


def check(pid: int, members: Sequence[int]) -> None:
    """That nothing in the container whose first process is ``pid`` stands in the way.

    Raises:
        RebaseRefused: something does: the process and what it holds, in words.
    """
    mounts = _Mounts(pid)
    sockets: dict[str, str] = {}
    for member in members:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            _check_places(mounts, member)
            for link, info in _open_files(member):
                _check_open_file(mounts, member, link, info)
                if link.startswith("socket:["):
                    sockets.setdefault(link[8:-1], _name(member))
    for inode, path in _bound_sockets(pid):
        if inode in sockets and mounts.is_of_root(path):
            raise RebaseRefused(f"{sockets[inode]} listens on the socket {path}")


class _Mounts:
    """The mounts of a container, as its first process sees them."""

    def __init__(self, pid: int) -> None:
        rows = [row.split() for row in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        self.pid = pid
        self.root_id = next(row[0] for row in rows if row[4] == "/")
        points = [row[4] for row in rows if row[1] == self.root_id]
        self.points = [point.encode().decode("unicode_escape") for point in points]
        self.namespace = os.readlink(f"/proc/{pid}/ns/mnt")
        self.root = _place(pid, "root")

    def is_of_root(self, path: str) -> bool:
        """Whether ``path`` lies in the root file system, and in none that is mounted there."""
        return not any(path == point or path.startswith(point + "/") for point in self.points)


def _check_places(mounts: _Mounts, pid: int) -> None:
    if os.readlink(f"/proc/{pid}/ns/mnt") != mounts.namespace:
        raise RebaseRefused(f"{_name(pid)} has mounts of its own")
    if _place(pid, "root") != mounts.root:
        raise RebaseRefused(f"{_name(pid)} has a root folder of its own")
    mount_id, inode = _place(pid, "cwd")
    if mount_id == mounts.root_id and inode != mounts.root[1]:
        path = os.readlink(f"/proc/{pid}/cwd")
        raise RebaseRefused(f"{_name(pid)} works in the folder {path}, not below /work")


def _check_open_file(mounts: _Mounts, pid: int, link: str, info: dict[str, str]) -> None:
    if info.get("mnt_id") != mounts.root_id:
        return
    if "lock" in info:
        raise RebaseRefused(f"{_name(pid)} holds a lock on {link}")
    if "FIFO" in info:
        raise RebaseRefused(f"{_name(pid)} has the FIFO {link} open")


def _open_files(pid: int) -> Iterator[tuple[str, dict[str, str]]]:
    """What each descriptor of a process is, and its fields of proc_pid_fdinfo(5)."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
            info = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            if link.startswith("/") and stat.S_ISFIFO(os.stat(f"/proc/{pid}/fd/{fd}").st_mode):
                info["FIFO"] = link
            yield link, info


def _bound_sockets(pid: int) -> Iterator[tuple[str, str]]:
    """The inode and the path of each socket that waits at a path for others."""
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        row = line.split(maxsplit=7)
        if len(row) == 8 and row[7].startswith("/"):
            if int(row[3], 16) & _LISTENS or row[4] == _DATAGRAM:
                yield row[6], row[7]


def _place(pid: int, name: str) -> tuple[str, int]:
    """Mount id and inode of a process's ``root`` or ``cwd``."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_PATH | os.O_CLOEXEC)
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
        mount_id = next(line.split()[1] for line in text.splitlines() if line[:7] == "mnt_id:")
        return mount_id, os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _name(pid: int) -> str:
    """A process as its container knows it: ``python3 (process 7)``."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return f"{fields['Name']} (process {fields['NSpid'].split()[-1]})"


# ---------------------------------------------------------------- what must be seen as new


def show_as_new(
    layers: Sequence[Path],
    since: int,
    upper: Path,
    touched: Path,
    owner: Callable[[int], int],
) -> None:
    """Make every folder that the layers from number ``since`` on add something to look changed.

    Frozen folders all have the same time, and whoever has listed one (Python, before an import)
    looks at its time to know whether it must be listed again. So ``touched``, which is to lie on
    top of the layers, gets these folders with the present time; and where the container has
    written to one itself, the one in ``upper`` gets it. ``owner`` says whose a folder in
    ``touched`` is to be that is somebody's in the layers.
    """
    for number in range(since, len(layers)):
        pending = [""]
        for folder in pending:
            for name, info in _folders(layers[number] / folder):
                path = folder + name
                is_below = any(_is_folder(layer / path) for layer in layers[:number])
                written = _written(upper, path)
                if is_below:
                    _touch(touched, path, info, owner)
                if written:
                    os.utime(written, follow_symlinks=False)
                if is_below or written:
                    pending.append(path + "/")


def _folders(folder: Path) -> list[tuple[str, os.stat_result]]:
    """The names of the folders in a folder. Its links count them, where the file system does."""
    if folder.stat().st_nlink == 2:
        return []
    with os.scandir(folder) as entries:
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [(entry.name, entry.stat(follow_symlinks=False)) for entry in folders]


def _written(upper: Path, path: str) -> Path | None:
    """The folder ``path`` in ``upper``, no link followed; None when it is not there."""
    here = upper
    for name in Path(path).parts:
        here = here / name
        if not _is_folder(here):
            return None
    return here


def _touch(top: Path, path: str, like: os.stat_result, owner: Callable[[int], int]) -> None:
    """A folder of the present time; its parents are there already."""
    folder = top / path
    with suppress(FileExistsError):
        folder.mkdir()
    os.chown(folder, owner(like.st_uid), owner(like.st_gid))
    folder.chmod(stat.S_IMODE(like.st_mode))


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


# ---------------------------------------------------------------- the exchange


def switch(pid: int, root: Path) -> None:
    """Make the mount at ``root`` the root of the container whose first process is ``pid``.

    Its processes stand still. When this fails, the old root is in its place, with all that was
    mounted there.

    Raises:
        HostError: the host kernel refused.
    """
    points = _Mounts(pid).points
    new = syscalls.clone_mount(str(root))
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with_own_directory(lambda: _exchange(namespace, new, points))
    except OSError as error:
        raise HostError(f"the host kernel refused: {error.strerror} ({error.filename})") from error
    finally:
        os.close(namespace)
        os.close(new)


def _exchange(namespace: int, new: int, points: Sequence[str]) -> None:
    """In a thread of its own. From setns(2) on nothing may be imported or opened by name: names
    are the container's.
    """
    syscalls.unshare(syscalls.CLONE_FS)
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.move_mount(new, "/")
        os.fchdir(new)
        moved: list[str] = []
        try:
            for point in points:
                _move(old, new, point)
                moved.append(point)
            syscalls.pivot_root(".", ".")
        except BaseException:
            for point in reversed(moved):
                _move(new, old, point)
            syscalls.umount(".", syscalls.MNT_DETACH)
            raise
        with suppress(OSError):
            syscalls.make_readonly(old)
        syscalls.umount(".", syscalls.MNT_DETACH)
    finally:
        os.close(old)


def _move(source: int, target: int, point: str) -> None:
    """Move what is mounted at ``point`` of one root to the same place of another."""
    mounted = syscalls.open_in_root(source, point, os.O_PATH, links=False)
    try:
        place = syscalls.open_in_root(target, point, os.O_PATH, links=False)
        try:
            syscalls.move_mount(mounted, place)
        finally:
            os.close(place)
    finally:
        os.close(mounted)
