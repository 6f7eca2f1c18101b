"""Trees: is a frozen tree still what its name says, and if not, what of it changed?

The tree is encoded and hashed again. Where that gives another diff_id, the headers that were kept
when it was frozen tell what each file was; with them in the place of today's, the same digest comes
out again if no content changed. A content that changed in place is told by the inode's change time,
which nobody can set back, as far as somebody wrote to it at all.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..errors import ImageError, StoreError, out_of_files
from ..folders import walk
from ..oci import tar_header as tar
from ..oci.changeset import tree_digest
from ..oci.idmap import IdMap
from ..oci.tar_writer import HeaderKeeper, TarHasher
from ..record import record
from . import layer
from .layer import Snapshot

CONTENT, ADDED, REMOVED = "content-changed", "file-added", "file-removed"
MODE, OWNER, XATTR, MTIME = "mode-changed", "owner-changed", "xattr-changed", "mtime-changed"
METADATA = frozenset((MODE, OWNER, MTIME))
"""What can be set back, since it is known what it was."""


@record
class Entry:
    """One file as its header tells."""

    kind: bytes
    mode: int
    owner: tuple[bytes, bytes]
    size: bytes
    mtime: bytes
    link: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]


@record
class Change:
    """What became of one path of a tree."""

    damage: str
    path: str
    was: str = ""
    now: str = ""


def examine(snapshot: Snapshot, *, idmap: IdMap, userxattr: bool) -> list[Change]:
    """Hash the tree again; what changed, nothing if it is what its name says."""
    keeper = HeaderKeeper()
    try:
        digest, _ = tree_digest(snapshot.path, idmap=idmap, userxattr=userxattr, hasher=keeper)
        if digest == snapshot.diff_id:
            return []
        return _changes(snapshot, keeper.headers, idmap, userxattr)
    except (OSError, StoreError, ImageError) as error:
        if host_error := out_of_files(error):
            raise host_error from error  # which tells nothing of the tree
        return [Change(CONTENT, "", now=f"cannot be read: {error}")]


Examine = Callable[[Snapshot], list[Change] | None]
"""What changed in a layer that came as a foreign tar; None where that cannot be told."""


def check_touched(snapshot: Snapshot, imported: Examine, *, idmap: IdMap, userxattr: bool) -> None:
    """See whether a layer with changed inodes is still what its name says; note it if it is.

    ``imported`` is asked about layers that are not of our own making.

    Raises:
        StoreError: it is not, or nothing tells.
    """
    changes: list[Change] | None = examine(snapshot, idmap=idmap, userxattr=userxattr)
    if changes and not (snapshot.folder / layer.HEADERS).exists():
        changes = imported(snapshot)
    if changes is None:
        raise StoreError(
            f"layer {snapshot.diff_id.short} was touched in the store, and the blob that tells "
            "whether it changed is missing or damaged: nothing is frozen on top of it",
            hint="pull or load its image again, then run this again",
        )
    damage = [change for change in changes if change.damage != MTIME]
    if damage:
        first = f"/{damage[0].path}" if damage[0].path else damage[0].now
        raise StoreError(
            f"layer {snapshot.diff_id.short} was changed in the store ({first}): "
            "nothing is frozen on top of it",
            hint="run `container-kernel store check --full --repair`, then run this again",
        )
    os.utime(snapshot.folder / layer.RECORD)


def compare(expected: Path, tree: Path, *, idmap: IdMap, userxattr: bool) -> list[Change]:
    """What is different in ``tree`` from ``expected``, which nobody has touched."""
    keepers = HeaderKeeper(), HeaderKeeper()
    for keeper, folder in zip(keepers, (expected, tree), strict=True):
        tree_digest(folder, idmap=idmap, userxattr=userxattr, hasher=keeper)
    if keepers[0].digest == keepers[1].digest:
        return []
    was, now = (entries(b"".join(keeper.headers)) for keeper in keepers)
    found = [*_listed(was, now)]
    told = {change.path for change in found if change.damage == CONTENT}
    for name in now_files(now) & now_files(was) - told:
        if not filecmp.cmp(expected / name, tree / name, shallow=False):
            found.append(Change(CONTENT, name))
    return found


def set_back(snapshot: Snapshot, changes: list[Change], idmap: IdMap) -> None:
    """Give files that are else unchanged the mode, owner and time they had."""
    was = entries(layer.read_headers(snapshot.folder) or b"")
    for path in {change.path for change in changes}:
        entry, place = was[os.fsencode(path)], snapshot.path / path
        uid, gid = (idmap.to_disk(int(number)) for number in entry.owner)
        os.chown(place, uid, gid, follow_symlinks=False)
        if entry.kind != tar.SYMLINK:
            place.chmod(entry.mode)
        os.utime(place, (int(entry.mtime),) * 2, follow_symlinks=False)


def entries(headers: bytes) -> Mapping[bytes, Entry]:
    """The files that the headers of a tar of ours tell of, by path."""
    return dict(_entries(headers))


def _entries(headers: bytes) -> Iterator[tuple[bytes, Entry]]:
    at, more = 0, dict[bytes, bytes]()
    while at < len(headers):
        block = headers[at : at + tar.BLOCK]
        at += tar.BLOCK
        size = int(block[124:135], 8)
        if block[156:157] == tar.PAX:
            more = dict(_pax(headers[at : at + size]))
            at += size + tar.padding(size)
            continue
        path = more.get(b"path", _text(block[:100]))
        yield (
            path.rstrip(b"/"),
            Entry(
                block[156:157],
                int(block[100:107], 8),
                (
                    more.get(b"uid", b"%d" % int(block[108:115], 8)),
                    more.get(b"gid", b"%d" % int(block[116:123], 8)),
                ),
                more.get(b"size", b"%d" % size),
                more.get(b"mtime", b"%d" % int(block[136:147], 8)),
                more.get(b"linkpath", _text(block[157:257])) + block[329:345],
                tuple(sorted(p for p in more.items() if p[0].startswith(tar.XATTR_PREFIX))),
            ),
        )
        more = {}


def _pax(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    while body:
        length, _, _ = body.partition(b" ")
        key, _, value = body[len(length) + 1 : int(length) - 1].partition(b"=")
        yield key, value
        body = body[int(length) :]


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _changes(
    snapshot: Snapshot, headers: list[bytes], idmap: IdMap, userxattr: bool
) -> list[Change]:
    recorded = layer.read_headers(snapshot.folder)
    try:
        was = entries(recorded) if recorded is not None else {}
    except (ValueError, IndexError):
        was = {}
    if not was:
        return [*_suspects(snapshot)] or [Change(CONTENT, "", now=_UNKNOWN)]
    now = entries(b"".join(headers))
    found = [*_listed(was, now)]
    if any(change.damage not in {MODE, OWNER, XATTR, MTIME} for change in found):
        return found
    again = _Again(recorded or b"", len(headers))
    digest, _ = tree_digest(snapshot.path, idmap=idmap, userxattr=userxattr, hasher=again)
    if digest == snapshot.diff_id:
        return found
    told = {change.path for change in found}
    suspects = [change for change in _suspects(snapshot) if change.path in now_files(now)]
    suspects = [change for change in suspects if change.path not in told] or suspects
    return [*(suspects or [Change(CONTENT, "", now=_UNKNOWN)]), *found]


_UNKNOWN = "other bytes; nothing tells which file"


def now_files(now: Mapping[bytes, Entry]) -> set[str]:
    """The paths of files with a content."""
    return {os.fsdecode(path) for path, entry in now.items() if entry.kind == tar.FILE}


def _listed(was: Mapping[bytes, Entry], now: Mapping[bytes, Entry]) -> Iterator[Change]:
    for path in sorted(was.keys() | now.keys()):
        name = os.fsdecode(path)
        if path not in now:
            yield Change(REMOVED, name)
        elif path not in was:
            yield Change(ADDED, name)
        else:
            yield from _differences(name, was[path], now[path])


def _differences(path: str, was: Entry, now: Entry) -> Iterator[Change]:
    if (was.kind, was.size, was.link) != (now.kind, now.size, now.link):
        are_files = was.kind == now.kind == tar.FILE
        sizes = (f"{int(was.size)} bytes", f"{int(now.size)} bytes") if are_files else ("", "")
        yield Change(CONTENT, path, *sizes)
    if was.mode != now.mode:
        yield Change(MODE, path, f"{was.mode:04o}", f"{now.mode:04o}")
    if was.owner != now.owner:
        owners = (f"{int(e.owner[0])}:{int(e.owner[1])}" for e in (was, now))
        yield Change(OWNER, path, *owners)
    if was.xattrs != now.xattrs:
        names = (
            ", ".join(os.fsdecode(n.removeprefix(tar.XATTR_PREFIX)) for n, _ in e.xattrs)
            for e in (was, now)
        )
        yield Change(XATTR, path, *names)
    if was.mtime != now.mtime:
        yield Change(MTIME, path, f"{int(was.mtime)}", f"{int(now.mtime)}")


def _suspects(snapshot: Snapshot) -> Iterator[Change]:
    """Files whose inode changed after the layer was frozen."""
    frozen_ns = (snapshot.folder / layer.RECORD).stat().st_ctime_ns
    for folder, _, names in walk(snapshot.path):
        for name in names:
            place = Path(folder, name)
            if place.lstat().st_ctime_ns > frozen_ns:
                yield Change(CONTENT, str(place.relative_to(snapshot.path)))


class _Again(TarHasher):
    """Hashes the headers that were kept in the place of those that come."""

    def __init__(self, headers: bytes, count: int) -> None:
        super().__init__()
        self._headers = headers
        self._at = 0
        self._left = count

    def write(self, data: bytes) -> None:
        """Append the header that was kept for the next entry."""
        if not self._left:
            super().write(data)
            return
        self._left -= 1
        start = self._at
        while self._headers[self._at + 156 : self._at + 157] == tar.PAX:
            size = int(self._headers[self._at + 124 : self._at + 135], 8)
            self._at += tar.BLOCK + size + tar.padding(size)
        self._at += tar.BLOCK
        super().write(self._headers[start : self._at])
