"""Box: layers are unpacked by a child that can see nothing but the folder it unpacks into.

The child is a fresh interpreter, so it shares no memory and no lock with us. It gets the layer and
the target by descriptor, gives up the rest (``confine``), unpacks, and answers with one JSON
object on its standard output. Whatever a layer makes it do, it can do to its own target only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

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


def unpack_boxed(
    source: int,
    target: Path | None,
    *,
    idmap: IdMap,
    userxattr: bool,
    parents: Sequence[Path] = (),
    caps: Caps | None = None,
) -> Unpacked:
    """Unpack the layer open as ``source`` into ``target``; without one, only look at its bytes.

    ``source`` may be a pipe. ``parents`` are the trees below, topmost first.

    Raises:
        ImageError: the layer is malformed or not allowed; ``target`` is half made then.
        StoreError: the disk is full.
        HostError: the box could not be built here.
    """
    folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in parents]
    order = {
        "path": [os.path.abspath(entry) for entry in sys.path],
        "parent": os.getpid(),
        "target": None if target is None else os.fspath(target.absolute()),
        "folders": folders,
        "extents": idmap.extents,
        "squash": idmap.squash,
        "userxattr": userxattr,
        "caps": asdict(caps or Caps()),
        "cpu_s": _CPU_FLOOR_S + _size_of(source) // _BYTES_PER_CPU_S,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _START, json.dumps(order)],
            stdin=source,
            capture_output=True,
            pass_fds=folders,
            env={"LC_ALL": "C.UTF-8"},
            check=False,
        )
    finally:
        for folder in folders:
            os.close(folder)
    return _answer(done)


def _size_of(source: int) -> int:
    return os.fstat(source).st_size or _UNKNOWN_SIZE


def _answer(done: subprocess.CompletedProcess[bytes]) -> Unpacked:
    try:
        answer = json.loads(done.stdout[:_MAX_ANSWER_BYTES])
        if "error" not in answer:
            return Unpacked(
                Digest(answer["diff_id"]),
                int(answer["size"]),
                int(answer["entries"]),
                str(answer["compression"]),
            )
        kind, message, hint = answer["error"]
    except (ValueError, TypeError, KeyError):
        _fail(done)
    raise _ERRORS.get(kind, ImageError)(str(message), hint=hint)


def _fail(done: subprocess.CompletedProcess[bytes]) -> NoReturn:
    if done.returncode == -24:  # SIGXCPU
        raise ImageError("a layer took too long to unpack")
    tail = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    raise ImageError(f"the process unpacking a layer ended with {done.returncode}: {tail}")


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
    stream = Decompressed(lambda size: os.read(0, size), Caps(**order["caps"]))
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
            parents=order["folders"],
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
