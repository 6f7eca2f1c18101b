"""Attach: files and folders of the host and volumes, brought to where a container can have them.

A source is opened once, as a descriptor, and everything after that is done to what was opened:
whoever exchanges it for a link meanwhile changes nothing. Relative sources are resolved inside the
notebook's folder (openat2(2), RESOLVE_IN_ROOT), where run cells can put links; so are absolute
ones that lie in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .. import syscalls
from ..errors import CellError, InputNotFound
from ..record import record
from . import mount_point, mounts, volumes
from .bundle import Mount
from .host import Host, swapping_userns

if TYPE_CHECKING:
    from .rootfs import Rootfs

_NEVER = ("/proc", "/sys", "/dev", "/run", "/var/run")


@record
class Around:
    """Folders that decide what a source may be: the notebook's, the user's home, the store's."""

    notebook: Path
    home: Path
    store: Path


class Attached:
    """Sources, bound in our own mount namespace, where nobody else can exchange them.

    ``uid`` is who is to own, on this host, what the owner of a source owns; else owners are as
    the user namespace ``shift`` maps them, or as they are.
    """

    def __init__(
        self, host: Host, around: Around, *, uid: int | None = None, shift: int | None = None
    ) -> None:
        self._host = host
        self._around = around
        self._uid = uid if not host.namespace.is_rootless else None
        self._shift = shift
        self._bound: list[Path] = []
        self._volumes: list[int] = []
        self.mounts: list[Mount] = []
        self.wishes: list[mounts.Wish] = []

    def add(self, wish: mounts.Wish) -> None:
        """Have it in `mounts` from now on.

        Raises:
            InputNotFound: the source is not there, or is none that may be mounted.
        """
        check_target(wish, self.wishes)
        if wish.kind == "tmpfs":
            size = [] if wish.size_bytes is None else [f"size={wish.size_bytes}"]
            options = ("nosuid", "nodev", "mode=1777", *size)
            self.mounts.append(Mount("tmpfs", wish.target, "tmpfs", options))
        else:
            tree = self.tree(wish)
            try:
                self.mounts.append(self._bind(tree, wish))
            finally:
                os.close(tree)
        self.wishes.append(wish)

    def tree(self, wish: mounts.Wish) -> int:
        """A descriptor of a mount of the source, attached nowhere."""
        if wish.kind == "volume":
            folder = volumes.make(self._around.store, wish.source)
            self._volumes.append(volumes.hold(folder))
            source = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        else:
            source = open_source(wish.source, self._around)
        try:
            return self._clone(source, wish)
        finally:
            os.close(source)

    def mount(self, wish: mounts.Wish, rootfs: Rootfs, pid: int | None) -> None:
        """Have it, in ``rootfs``, and in the container of ``pid`` at once.

        Raises:
            CellError: the source or the target cannot be had; nothing has changed.
        """
        self.add(wish)
        try:
            is_file, root = self._is_file(wish), rootfs.idmap.to_disk(0)
            with rootfs.as_root:
                mount_point.make(rootfs.fd, wish.target, root, is_file=is_file)
            if pid is not None:
                tree = self.tree(wish)
                try:
                    mount_point.into(pid, tree, wish.target)
                finally:
                    os.close(tree)
        except BaseException as error:
            self._drop(wish)
            if isinstance(error, OSError):
                raise CellError(f"nothing can be mounted at {wish.target}: {error}") from error
            raise

    def unmount(self, target: str, pid: int | None) -> None:
        """Have it no more, nor in the container of ``pid``.

        Raises:
            CellError: nothing was mounted there.
        """
        wish = next((one for one in self.wishes if one.target == target), None)
        if wish is None:
            known = ", ".join(one.target for one in self.wishes) or "nothing"
            raise CellError(f"nothing is mounted at {target}", hint=f"mounted: {known}")
        if pid is not None:
            mount_point.out_of(pid, target)
        self._drop(wish)

    def check_points(self, root: int) -> None:
        """That nobody has put a link where something is to be mounted.

        Raises:
            CellError: somebody has.
        """
        for wish in self.wishes:
            try:
                os.close(syscalls.open_in_root(root, wish.target, os.O_PATH, links=False))
            except OSError as error:
                raise CellError(
                    f"nothing can be mounted at {wish.target}: {error.strerror}",
                    hint="something in the session put a link there, or removed it; restart it",
                ) from error

    def points(self) -> tuple[list[str], list[str]]:
        """The folders and the files that must be there to be mounted on."""
        return mount_points(self.wishes, self._around)

    def _is_file(self, wish: mounts.Wish) -> bool:
        return wish.kind == "path" and is_file_source(wish.source, self._around)

    def _drop(self, wish: mounts.Wish) -> None:
        index = self.wishes.index(wish)
        source = Path(self.mounts.pop(index).source)
        del self.wishes[index]
        if source in self._bound:
            self._bound.remove(source)
            self._host.unbind(source)

    def close(self) -> None:
        """Undo all."""
        for target in self._bound:
            self._host.unbind(target)
        for fd in self._volumes:
            os.close(fd)
        self._bound, self._volumes = [], []

    def _clone(self, source: int, wish: mounts.Wish) -> int:
        wanted = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
        if not wish.is_writable:
            wanted |= syscalls.MOUNT_ATTR_RDONLY
        owner = os.fstat(source)
        tree = syscalls.clone_tree(source)
        try:
            shift = self._shift if self._uid is None else swapping_userns(owner, self._uid)
            if shift is not None:
                with suppress(OSError):  # a file system that cannot: owners stay as they are
                    syscalls.set_tree(tree, syscalls.MOUNT_ATTR_IDMAP, userns_fd=shift)
            syscalls.set_tree(tree, wanted)
        except BaseException:
            os.close(tree)
            raise
        return tree

    def _bind(self, tree: int, wish: mounts.Wish) -> Mount:
        folder = self._host.new_folder("binds")
        place = folder
        if not stat.S_ISDIR(os.fstat(tree).st_mode):
            place = folder / "file"
            place.touch()
        syscalls.move_mount(tree, str(place))
        self._bound.append(place)
        return Mount.bind_as_is(place, wish.target, readonly=not wish.is_writable)


def check_target(wish: mounts.Wish, others: Sequence[mounts.Wish]) -> None:
    """That nothing is mounted there yet, nor above or below it.

    Raises:
        CellError: something is.
    """
    for other in others:
        if is_in(wish.target, other.target) or is_in(other.target, wish.target):
            raise CellError(
                f"{wish.target} cannot be mounted on: {other.text} is there",
                hint="choose targets that are not in each other",
            )


def mount_points(wishes: Sequence[mounts.Wish], around: Around) -> tuple[list[str], list[str]]:
    """The folders and the files that must be there to be mounted on."""
    folders: list[str] = []
    files: list[str] = []
    for wish in wishes:
        is_file = wish.kind == "path" and is_file_source(wish.source, around)
        (files if is_file else folders).append(wish.target)
    return folders, files


def is_file_source(source: str, around: Around) -> bool:
    """Whether a source is a file, not a folder."""
    fd = open_source(source, around)
    try:
        return not stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def open_source(source: str, around: Around) -> int:
    """A descriptor (O_PATH) of a file or folder of the host.

    Raises:
        InputNotFound: it is not there, or is none that may be mounted.
    """
    try:
        fd = _open(source, around)
    except OSError as error:
        raise InputNotFound(
            f"{source!r} cannot be mounted: {error.strerror}",
            hint="check the path; one that is not absolute is in the notebook's folder",
        ) from error
    try:
        _check(fd, source, around)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(source: str, around: Around) -> int:
    path = str(around.home / source[2:]) if source.startswith("~/") else source
    if ".." in path.split("/"):
        raise InputNotFound(
            f"{source!r} has .. in it", hint="name what is outside the notebook's folder absolutely"
        )
    folder = str(around.notebook)
    if os.path.isabs(path):
        if path != folder and not path.startswith(f"{folder}/"):
            return os.open(path, os.O_PATH | os.O_CLOEXEC)
        path = os.path.relpath(path, folder)
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.open_in_root(root, path, os.O_PATH)
    finally:
        os.close(root)


def _check(fd: int, source: str, around: Around) -> None:
    """No sockets and devices, and no folder that holds the user's keys or our store."""
    real = os.readlink(f"/proc/self/fd/{fd}")
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InputNotFound(f"{source!r} is neither a folder nor a file, so it is not mounted")
    kept = {"the home folder": around.home, "the store": around.store}
    for name, path in kept.items():
        if is_in(str(path.resolve()), real):
            raise InputNotFound(
                f"{source!r} is not mounted: {name} is in it", hint="mount a folder below it"
            )
    is_store = is_in(real, str(around.store.resolve()))
    if is_store or any(is_in(real, never) for never in _NEVER):
        raise InputNotFound(f"{source!r} is not mounted: it leads to {real}")


def is_in(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
