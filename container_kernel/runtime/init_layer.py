"""Init layer: what lies on top of an image's layers and belongs to no layer.

Real folders for ``/dev``, ``/proc``, ``/sys`` and every mount point, so that links an image put
there are covered before an OCI runtime looks at them (CVE-2026-41579 and its kin), and files of
our own. It is a lower folder of the overlay: no mount point is ever frozen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..oci.idmap import IdMap
from ..record import record
from .host import Host

_TO_US, _PASSED = ("/", "/run"), 0o111
"""What is on the way to the sockets that we share with a container must be passed by its user."""
_FOLDERS = ("/dev", "/proc", "/sys", "/run", "/etc")
_TEXTS = {"/etc/hosts": "127.0.0.1 localhost\n", "/etc/resolv.conf": "", "/etc/hostname": ""}


@record(kw_only=True)
class InitLayer:
    """``folders`` and ``files`` are mount points, ``texts`` are files with their content, ``homes``
    are folders that belong to a uid of the image.
    """

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    homes: tuple[tuple[str, int], ...] = ()

    def make(self, host: Host, below: Below) -> Path:
        """The folder that holds it, on top of the layers ``below``; made once in a process."""
        likes = below.likes(self._folders())
        key = (self, below.idmap, *likes.items())
        return host.once(key, lambda: self._fill(host.new_folder("init"), below.idmap, likes))

    def _folders(self) -> list[str]:
        """All there are, each before what is in it."""
        files = (*_TEXTS, *self.files, *(path for path, _ in self.texts))
        folders = [*_FOLDERS, *self.folders, *(path for path, _ in self.homes)]
        found = {"/"}
        for path in (*folders, *map(os.path.dirname, files)):
            folder = "/" + os.path.normpath("/" + path).lstrip("/")
            while folder not in found:
                found.add(folder)
                folder = os.path.dirname(folder)
        return sorted(found)

    def _fill(self, top: Path, idmap: IdMap, likes: Mapping[str, Like]) -> Path:
        root = idmap.to_disk(0)
        for path in likes:
            _inside(top, path).mkdir(exist_ok=True)
        for path, text in {**_TEXTS, **dict.fromkeys(self.files, ""), **dict(self.texts)}.items():
            target = _inside(top, path)
            target.write_text(text)
            target.chmod(0o644)
            os.chown(target, root, root)
        for path, like in likes.items():
            like.put_on(_inside(top, path))
        for path, uid in self.homes:
            os.chown(_inside(top, path), idmap.to_disk(uid), idmap.to_disk(uid))
        return top


@record
class Like:
    """What a folder of the image is, besides its name. ``uid`` and ``gid`` are this host's."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int

    def put_on(self, folder: Path) -> None:
        """Have ``folder`` be so; nothing is made in it any more."""
        os.chown(folder, self.uid, self.gid)
        folder.chmod(self.mode)
        os.utime(folder, ns=(self.mtime_ns, self.mtime_ns))


@record
class Below:
    """The layers below an init layer, base first, and what is to look changed on top of them.

    A folder that both have is written to a layer as the init layer has it, as soon as a file in
    it changes. So it must be what the image's is: its mode, its owner, and its time, which for one
    of ours would be when it was made. ``owner`` gives ids of the layers as the container has them.
    """

    layers: Sequence[Path]
    touched: Sequence[Path]
    idmap: IdMap
    owner: Callable[[int], int]

    def likes(self, folders: Sequence[str]) -> dict[str, Like]:
        """How each of them is in the image; plain where that has a link, or nothing."""
        here, newer = _topmost(self.layers, folders), _topmost(self.touched, folders)
        root = self.idmap.to_disk(0)
        found = dict.fromkeys(folders, Like(0o755, root, root, 0))
        for path, info in here.items():
            if stat.S_ISDIR(info.st_mode):
                mode = stat.S_IMODE(info.st_mode) | (_PASSED if path in _TO_US else 0)
                owners = self.owner(info.st_uid), self.owner(info.st_gid)
                mtime_ns = newer.get(path, info).st_mtime_ns
                found[path] = Like(mode, *owners, mtime_ns)
        return found


def _topmost(layers: Sequence[Path], folders: Sequence[str]) -> dict[str, os.stat_result]:
    """What is found under these names, each of which follows those it is in; through no link."""
    found: dict[str, os.stat_result] = {}
    for layer in reversed(layers):
        real = {"/"}
        for path in folders:
            if path == "/" or os.path.dirname(path) in real:
                with suppress(OSError):
                    info = os.lstat(f"{layer}{path}")
                    found.setdefault(path, info)
                    if stat.S_ISDIR(info.st_mode):
                        real.add(path)
    return found


def _inside(top: Path, path: str) -> Path:
    return top / os.path.normpath("/" + path).lstrip("/")
