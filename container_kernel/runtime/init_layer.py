"""Init layer: what lies on top of an image's layers and belongs to no layer.

Real folders for ``/dev``, ``/proc``, ``/sys`` and every mount point, so that links an image put
there are covered before an OCI runtime looks at them (CVE-2026-41579 and its kin), and files of
our own. It is a lower folder of the overlay: no mount point is ever frozen.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..oci.idmap import IdMap
from ..record import record
from .host import Host

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

    def make(self, host: Host, idmap: IdMap) -> Path:
        """The folder that holds it; made once in a process."""
        return host.once(self, lambda: self._fill(host.new_folder("init"), idmap))

    def _fill(self, top: Path, idmap: IdMap) -> Path:
        root = idmap.to_disk(0)
        os.chown(top, root, root)
        for path in (*_FOLDERS, *self.folders):
            _make_folder(top, path, root)
        for path, text in {**_TEXTS, **dict.fromkeys(self.files, ""), **dict(self.texts)}.items():
            _make_folder(top, os.path.dirname(path), root)
            target = _inside(top, path)
            target.write_text(text)
            target.chmod(0o644)
            os.chown(target, root, root)
        for path, uid in self.homes:
            _make_folder(top, path, root)
            os.chown(_inside(top, path), idmap.to_disk(uid), idmap.to_disk(uid))
        return top


def _make_folder(top: Path, path: str, owner: int) -> None:
    folder = str(top)
    for name in _inside(top, path).relative_to(top).parts:
        folder = f"{folder}/{name}"
        try:
            os.mkdir(folder)
        except FileExistsError:
            continue
        os.chmod(folder, 0o755)
        os.chown(folder, owner, owner)


def _inside(top: Path, path: str) -> Path:
    return top / os.path.normpath("/" + path).lstrip("/")
