"""Proposal: the build cells that would have made a frozen scratch.

What package managers wrote down tells which packages came, and which files are theirs. Small text
files become lines of a shell step; larger or binary ones are copied out of the frozen image. What
tools make again, or keep of a session, is named and left out.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath

from ..oci.digest import Digest
from ..record import field, record
from ..runtime.host import Host
from ..runtime.view import View
from ..store.store import Store
from . import installed
from .installed import Package

_MOST_TEXT = 4096
_MOST_TEXTS = 16384
_DPKG = "/var/lib/dpkg"
_AUTO = re.compile(r"^Package: (\S+)\n(?:[^\n]+\n)*?Auto-Installed: 1$", re.MULTILINE)
_PATH = re.compile(r"(?<![\w.-])/[\w.+-]+/[\w./+-]*\w")
_MERGED = ("/bin/", "/sbin/", "/lib/", "/lib64/")
# Below npm's prefix, wherever that is; a project has its packages beside its own files.
_NODE = re.compile(
    r"((?:/(?!node_modules/)[^/]+)*/lib/node_modules)/((?:@[^/]+/)?[^/@.][^/]*)/package\.json"
)

LEFT_OUT = {
    "caches, which are made again": (
        *("*/.cache/*", "/var/cache/*", "*/.npm/*", "*/__pycache__/*", "*.pyc"),
        *("/etc/ld.so.cache", "/var/lib/apt/*", "*/node-compile-cache/*"),
    ),
    "logs": ("/var/log/*",),
    "what programs keep of a session": (
        *("*/.bash_history", "*/.ash_history", "*/.python_history", "*/.wget-hsts"),
        *("*/.ipython/*", "*/.jupyter/*", "*/.local/share/jupyter/*"),
    ),
}
"""What is no part of a recipe, and which files that are."""
_OF_DPKG = (
    *(
        f"{_DPKG}/*",
        "/etc/alternatives/*",
        "/var/lib/systemd/*",
        "/var/lib/ucf/*",
        "/var/lib/pam/*",
    ),
    *("/etc/passwd*", "/etc/group*", "/etc/shadow*", "/etc/gshadow*", "/etc/subuid*"),
    *("/etc/subgid*", "/usr/share/info/dir*", "/etc/ssl/certs/*", "/usr/share/mime/*"),
)
"""What packages' own scripts write when they are installed."""


@record
class Proposal:
    """Cells in their order; what was left out, by reason; what no cell of ours can say."""

    cells: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    unexplained: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@record(frozen=False)
class _Draft:
    """Lines of the cells to be; ``copies`` by folder."""

    packages: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    rights: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    size: int = 0


def propose(host: Host, store: Store, chain: Digest, image: str) -> Proposal:
    """The cells that make on its parent what the last layer of ``chain`` has.

    ``image`` names the frozen image, for what is to be copied out of it.
    """
    snapshot = store.snapshots.chain(chain)[-1]
    assert snapshot.parent is not None
    draft = _Draft()
    with View(host, store, snapshot.parent) as before, View(host, store, chain) as after:
        paths = [*_walk(snapshot.path)]
        owned = _packages(draft, before, after, [path for path, _ in paths])
        reader = _Reader(draft, snapshot.path, store, before, image)
        for path, status in paths:
            if path not in owned:
                reader.take(path, status, has_dpkg=owned.has_dpkg)
    left_out = {reason: tuple(paths) for reason, paths in draft.left_out.items()}
    return Proposal(tuple(_cells(draft)), left_out, tuple(draft.unexplained), tuple(draft.remarks))


def _cells(draft: _Draft) -> Iterator[str]:
    if lines := [*draft.packages, *draft.copies]:
        yield "\n".join(lines)
    body = [*draft.removals, *draft.folders, *draft.files, *draft.rights]
    if body:
        yield "\n".join(["%%build --net none", *body])


def _walk(upper: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below, absolute in the image, folders before what is in them."""
    for here, folders, names, fd in os.fwalk(upper):
        inside = "/" + os.path.relpath(here, upper) if here != os.fspath(upper) else ""
        folders.sort()
        for name in sorted([*folders, *names]):
            yield f"{inside}/{name}", os.stat(name, dir_fd=fd, follow_symlinks=False)


# Packages


@record(frozen=False)
class _Owned:
    """The files that packages brought."""

    files: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    has_dpkg: bool = False

    def __contains__(self, path: str) -> bool:
        is_above = path in self._above
        is_below = any(path.startswith(folder) for folder in self.folders)
        return path in self.files or is_above or is_below

    @cached_property
    def _above(self) -> set[str]:
        """The folders that the files lie in."""
        return {os.fspath(one) for path in self.files for one in PurePosixPath(path).parents}


def _packages(draft: _Draft, before: View, after: View, paths: list[str]) -> _Owned:
    owned = _Owned()
    if f"{_DPKG}/status" in paths:
        _debian(draft, before, after, owned)
    _python(draft, after, paths, owned)
    _node(draft, after, paths, owned)
    return owned


def _debian(draft: _Draft, before: View, after: View, owned: _Owned) -> None:
    new = set(installed.debian(after)) - set(installed.debian(before))
    if not new:
        return
    owned.has_dpkg = True
    automatic = set(_AUTO.findall(after.read("/var/lib/apt/extended_states") or ""))
    asked = sorted(one for one in new if one.name not in automatic) or sorted(new)
    draft.packages.append(_line("%apt", (one.pinned for one in asked)))
    for one in new:
        for name in (one.name, f"{one.name}:{one.architecture}"):
            listed = (after.read(f"{_DPKG}/info/{name}.list") or "").splitlines()
            owned.files.update(listed)
            owned.files.update(f"/usr{path}" for path in listed if path.startswith(_MERGED))
            for script in ("preinst", "postinst"):  # what they name, they make
                said = after.read(f"{_DPKG}/info/{name}.{script}") or ""
                owned.files.update(_PATH.findall(said))


def _python(draft: _Draft, after: View, paths: list[str], owned: _Owned) -> None:
    found: list[Package] = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name != "METADATA" or not folder.endswith(".dist-info") or path in owned.files:
            continue
        found += installed.python(after, folder)
        site = folder.rpartition("/")[0]
        record_text = after.read(f"{folder}/RECORD") or ""
        for row in csv.reader(record_text.splitlines()):
            if row:
                owned.files.add(os.path.normpath(os.path.join(site, row[0])))
        owned.files.update(path for path in paths if path.startswith(f"{folder}/"))
        if not site.startswith("/usr/"):
            remark = f"pip had put packages below {site}; %pip puts them where all users find them"
            draft.remarks += [remark] if remark not in draft.remarks else []
    if found:
        draft.packages.append(_line("%pip", (one.pinned for one in sorted(found))))
        draft.remarks.append("%pip writes who installed a package (INSTALLER, RECORD) its own way")


def _node(draft: _Draft, after: View, paths: list[str], owned: _Owned) -> None:
    words: list[str] = []
    for path in paths:
        match = _NODE.fullmatch(path)
        if not match or path in owned.files:
            continue
        top, folder = match.groups()
        for one in installed.node(after, path):
            # npm can install a package under another name.
            words.append(one.pinned if one.name == folder else f"{folder}@npm:{one.pinned}")
            owned.folders.append(f"{top}/{folder}/")
        if not top.startswith("/usr/"):
            remark = f"npm had put packages below {top}; %npm puts them where all users find them"
            draft.remarks += [remark] if remark not in draft.remarks else []
    if words:
        draft.packages.append(_line("%npm", sorted(words)))


def _line(magic: str, words: Iterable[str]) -> str:
    return " ".join([magic, *(shlex.quote(word) for word in words)])


# All other files


class _Reader:
    """Turns what no package brought into lines of a draft."""

    def __init__(self, draft: _Draft, upper: Path, store: Store, before: View, image: str) -> None:
        self._draft = draft
        self._upper = upper
        self._idmap = store.idmap
        self._before = before
        self._image = image

    def take(self, path: str, status: os.stat_result, *, has_dpkg: bool) -> None:
        """One thing of the layer."""
        mode, draft = status.st_mode, self._draft
        is_folder = stat.S_ISDIR(mode)
        if reason := None if is_folder else _left_out(path):
            draft.left_out.setdefault(reason, []).append(path)
        elif has_dpkg and (_is_of_dpkg(path) or self._is_alternative(path, mode)):
            return
        elif stat.S_ISCHR(mode) and status.st_rdev == 0:
            draft.removals.append(f"rm -rf {shlex.quote(path)}")
        elif is_folder:
            self._folder(path, status)
        elif stat.S_ISLNK(mode):
            target = os.readlink(self._on_disk(path))
            if "node_modules/" not in target:
                draft.files.append(f"ln -sfn {shlex.quote(target)} {shlex.quote(path)}")
                self._rights(path, status, None)
        elif stat.S_ISREG(mode):
            self._file(path, status)
        else:
            draft.unexplained.append(path)

    def _folder(self, path: str, status: os.stat_result) -> None:
        """A folder that is new or other than it was; a plain one above files needs no line."""
        was = self._lower(path)
        if was is not None and _is_opaque(self._on_disk(path)):
            self._draft.removals.append(f"rm -rf {shlex.quote(path)}")
            was = None
        if was is not None or _left_out(f"{path}/"):
            return
        is_plain = not self._rights(path, status, 0o755)
        line = f"mkdir -p {shlex.quote(path)}"
        if not (is_plain and os.listdir(self._on_disk(path))) and line not in self._draft.folders:
            self._draft.folders.append(line)

    def _file(self, path: str, status: os.stat_result) -> None:
        draft, text = self._draft, None
        if status.st_size <= min(_MOST_TEXT, _MOST_TEXTS - draft.size):
            with suppress(UnicodeDecodeError):
                text = self._on_disk(path).read_bytes().decode()
        if text is None or "\0" in text or "\r" in text or not (text.endswith("\n") or not text):
            draft.copies.append(
                f"%copy --from {self._image} {shlex.quote(path)} {shlex.quote(path)}"
            )
            self._rights(path, status, None)
            return
        draft.size += len(text)
        folder = os.path.dirname(path)
        if self._lower(folder) is None and (line := f"mkdir -p {shlex.quote(folder)}"):
            draft.folders += [line] if line not in draft.folders else []
        mark = next(m for m in ("EOF", "END", "_END_OF_FILE_") if m not in text.splitlines())
        draft.files.append(f"cat > {shlex.quote(path)} <<'{mark}'\n{text}{mark}")
        self._rights(path, status, 0o644)

    def _rights(self, path: str, status: os.stat_result, usual: int | None) -> bool:
        """Lines for an owner and a mode that are not the usual ones; False if they are."""
        uid, gid = (self._idmap.to_image(number) for number in (status.st_uid, status.st_gid))
        name, mode = shlex.quote(path), stat.S_IMODE(status.st_mode)
        if uid or gid:
            self._draft.rights.append(f"chown -h {uid}:{gid} {name}")
        if usual is not None and mode != usual:
            self._draft.rights.append(f"chmod {mode:o} {name}")
        return bool(uid or gid) or usual not in (None, mode)

    def _on_disk(self, path: str) -> Path:
        return self._upper / path.lstrip("/")

    def _lower(self, path: str) -> os.stat_result | None:
        try:
            return os.stat(path.lstrip("/"), dir_fd=self._before.fd, follow_symlinks=False)
        except OSError:
            return None

    def _is_alternative(self, path: str, mode: int) -> bool:
        if not stat.S_ISLNK(mode):
            return False
        return os.readlink(self._on_disk(path)).startswith("/etc/alternatives/")


def _left_out(path: str) -> str | None:
    for reason, patterns in LEFT_OUT.items():
        if any(fnmatchcase(path, pattern) for pattern in patterns):
            return reason
    return None


def _is_of_dpkg(path: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in _OF_DPKG)


def _is_opaque(folder: Path) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        with suppress(OSError):
            if os.getxattr(folder, name) == b"y":
                return True
    return False
