"""Box: layers are unpacked by a child that can see nothing but the folder it unpacks into.

The child is a fresh interpreter, so it shares no memory and no lock with us. It gets the layer and
the target by descriptor, gives up the rest (``confine``), unpacks, and answers with one JSON
object on its standard output. Whatever a layer makes it do, it can do to its own target only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ..errors import HostError, ImageError, StoreError
from ..oci.decoder import MAX_ENTRIES, apply
from ..oci.digest import Digest
from ..oci.idmap import IdMap
from ..record import asdict, record
from .compression import Caps, Decompressed
from .confine import confine, die_with_parent

MEMORY_BYTES = 256 << 20
_CPU_FLOOR_S = 120
_BYTES_PER_CPU_S = 1 << 20
_UNKNOWN_SIZE = 1 << 30
_MAX_ANSWER_BYTES = 64 << 10
# The child gets our module search path instead of making its own: faster, and the same code.
_START = (
    "import json, sys; order = json.loads(sys.argv[1]); sys.path[:] = order['path']; "
    "from container_kernel.transfer.box import serve; serve(order)"
)
_ERRORS = {"ImageError": ImageError, "StoreError": StoreError, "HostError": HostError}


@record
class Unpacked:
    """What was found in a layer: the digest and size of its plain tar, and its entries."""

    diff_id: Digest
    size: int
    entries: int
    compression: str


class Box:
    """A layer that a child of its own is unpacking; until `result` or `close`.

    ``source`` is the layer, open; it may be a pipe. ``target`` is the empty folder it goes into;
    without one its bytes are only looked at. ``parents`` are the trees below, topmost first, which
    may still be in the making: the child looks at them after `allow_parents`.
    """

    def __init__(
        self,
        source: int,
        target: Path | None,
        *,
        idmap: IdMap,
        userxattr: bool,
        parents: Sequence[Path] = (),
        caps: Caps | None = None,
    ) -> None:
        with ExitStack() as childs:
            folders = [_folder(path, childs) for path in parents]
            allowed, self._allow = os.pipe()
            childs.callback(os.close, allowed)
            order = {
                "path": [os.path.abspath(entry) for entry in sys.path],
                "parent": os.getpid(),
                "target": None if target is None else os.fspath(target.absolute()),
                "folders": folders,
                "allowed": allowed,
                "extents": idmap.extents,
                "squash": idmap.squash,
                "userxattr": userxattr,
                "caps": asdict(caps or Caps()),
                "cpu_s": _CPU_FLOOR_S + _size_of(source) // _BYTES_PER_CPU_S,
            }
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _START, json.dumps(order)],
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[*folders, allowed],
                    env={"LC_ALL": "C.UTF-8"},
                )
            except BaseException:
                os.close(self._allow)
                raise
        assert self._child.stdout is not None
        self._answer = self._child.stdout

    def fileno(self) -> int:
        """What can be read from once the child has an answer, or is gone."""
        return self._answer.fileno()

    def allow_parents(self) -> None:
        """The trees below are whole now."""
        with suppress(BrokenPipeError):
            os.write(self._allow, b"\0")

    def result(self) -> Unpacked:
        """What the child found, once it is done.

        Raises:
            ImageError: the layer is malformed or not allowed; ``target`` is half made then.
            StoreError: the disk is full.
            HostError: the box could not be built here.
        """
        try:
            said = self._answer.read(_MAX_ANSWER_BYTES)
        finally:
            self.close()
        return _answer(said, self._child.returncode)

    def close(self) -> None:
        """End the child, if it has not ended."""
        if not self._answer.closed:
            self._answer.close()
            os.close(self._allow)
        self._child.kill()
        self._child.wait()


def unpack_boxed(
    source: int,
    target: Path | None,
    *,
    idmap: IdMap,
    userxattr: bool,
    parents: Sequence[Path] = (),
    caps: Caps | None = None,
) -> Unpacked:
    """Unpack the layer open as ``source`` into ``target`` on whole ``parents``, as `Box` does.

    Raises:
        ImageError, StoreError, HostError: as `Box.result` says.
    """
    box = Box(source, target, idmap=idmap, userxattr=userxattr, parents=parents, caps=caps)
    box.allow_parents()
    return box.result()


def _folder(path: Path, owner: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    owner.callback(os.close, fd)
    return fd


def _size_of(source: int) -> int:
    return os.fstat(source).st_size or _UNKNOWN_SIZE


def _answer(said: bytes, status: int) -> Unpacked:
    last = said.strip().rpartition(b"\n")[2]
    try:
        answer = json.loads(last)
        if "error" not in answer:
            return Unpacked(
                Digest(answer["diff_id"]),
                int(answer["size"]),
                int(answer["entries"]),
                str(answer["compression"]),
            )
        kind, message, hint = answer["error"]
    except (ValueError, TypeError, KeyError):
        raise _failure(last.decode(errors="replace"), status) from None
    raise _ERRORS.get(kind, ImageError)(str(message), hint=hint)


def _failure(last_line: str, status: int) -> ImageError:
    if status == -signal.SIGXCPU:
        return ImageError("a layer took too long to unpack")
    return ImageError(f"the process unpacking a layer ended with {status}: {last_line}")


def serve(order: dict[str, Any]) -> None:
    """The child: obey ``order``, print the answer."""
    try:
        die_with_parent(order["parent"])
        answer = _unpack(order)
    except (ImageError, StoreError, HostError) as error:
        answer = {"error": [type(error).__name__, error.message, error.hint]}
    except MemoryError:
        needs = f"it needs more than {MEMORY_BYTES >> 20} MiB of memory to unpack"
        answer = {"error": ["ImageError", needs, None]}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


def _unpack(order: dict[str, Any]) -> dict[str, Any]:
    target = order["target"]
    # Opened and imported before the doors close.
    root = None if target is None else os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    stream = Decompressed(lambda size: os.read(0, size), Caps(**order["caps"]), fast=True)
    try:
        confine(
            target,
            memory_bytes=MEMORY_BYTES,
            cpu_s=order["cpu_s"],
            keep_admin=not order["userxattr"],
            readable=order["folders"],
        )
    except OSError as error:
        raise HostError(f"layers cannot be unpacked safely here: {error}") from error
    entries = 0
    if root is not None:
        size = apply(
            stream,
            root,
            idmap=IdMap(tuple((a, b, c) for a, b, c in order["extents"]), order["squash"]),
            userxattr=order["userxattr"],
            parents=lambda: _parents(order),
            max_entries=MAX_ENTRIES,
        )
        entries = size.entries
    while stream.read(1 << 20):
        pass
    return {
        "diff_id": str(stream.digest),
        "size": stream.size,
        "entries": entries,
        "compression": stream.compression,
    }


def _parents(order: dict[str, Any]) -> Sequence[int]:
    """The trees below, as soon as they are whole."""
    folders: list[int] = order["folders"]
    if folders and not os.read(order["allowed"], 1):
        raise ImageError("the layers below it came to nothing")
    return folders
