"""Journal: which layers were made for a cache key, and of what.

One small file per key, beside the index: what the key is made of, and for each layer ever made
for it the packages and files that went in. Losing it loses explanations and locks, never a layer.
Packages that have no cache by digest of their own (Debian's, npm's) are kept here by digest too.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.digest import Digest
from ..store.places import INPUTS
from ..store.small_files import write_whole

if TYPE_CHECKING:
    from .events import Layer
    from .graph import Parts
    from .resolved import Input


def kept_as(one: Input) -> str | None:
    """The name a package is kept under here, its digest in hexadecimal; None if it is not kept."""
    digest = str(one.get("digest") or "")
    if one["kind"] == "deb":
        return Digest(digest).hex
    if one["kind"] == "npm" and digest.startswith(_INTEGRITY):
        return base64.b64decode(digest.removeprefix(_INTEGRITY)).hex()
    return None


_INTEGRITY = "sha512-"
"""What a digest begins with where npm gives it; the rest is base64."""


class Journal:
    """The journal of the store in ``home``, shared by all notebooks."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "journal"
        self._kept = home / INPUTS

    def write(self, key: str, parts: Parts, diff_id: Digest, inputs: Sequence[Input]) -> None:
        """Note that ``key`` gave the layer ``diff_id``, of ``inputs``."""
        known = self._read(key)
        made = {**known.get("made", {}), str(diff_id): list(inputs)}
        write_whole(self._path(key), json.dumps({"parts": parts, "made": made}))

    def parts(self, key: str) -> Parts:
        """What ``key`` is made of; nothing when it was not made here."""
        found: Parts = self._read(key).get("parts", {})
        return found

    def inputs(self, key: str, diff_id: Digest) -> list[Input] | None:
        """What the layer ``diff_id`` was made of; None when it was not made here for ``key``."""
        found: list[Input] | None = self._read(key).get("made", {}).get(str(diff_id))
        return found

    def of_layer(self, layer: Layer) -> list[Input] | None:
        """The same of a step's layer, or of the first one of a base."""
        return self.inputs(layer.key or base_key(layer.chain_id), layer.diff_id)

    def keep(self, inputs: Sequence[Input], downloads: Path) -> None:
        """Keep packages by digest: a second name for the file, no second copy."""
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, file in _files(inputs, downloads):
            with suppress(OSError):  # what cannot be kept is fetched again
                _keep(file, self._kept / name)

    def bring(self, inputs: Sequence[Input], downloads: Path) -> None:
        """Put kept packages where package managers look for what was downloaded."""
        for name, target in _files(inputs, downloads):
            if not _is(target, name):
                kept = self._kept / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                if _is(kept, name):
                    with suppress(OSError):
                        os.utime(kept)  # when it was used last
                        os.link(kept, target)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _read(self, key: str) -> Parts:
        try:
            found: Parts = json.loads(self._path(key).read_text())
        except (OSError, ValueError):
            return {}
        return found


def base_key(chain_id: Digest) -> str:
    """What a first layer is noted under, which many a definition may have made."""
    return f"base-{chain_id.hex}"


def _files(inputs: Sequence[Input], downloads: Path) -> Iterator[tuple[str, Path]]:
    """What each package is kept as, and where it lies once it was downloaded."""
    for one in inputs:
        if name := kept_as(one):
            yield name, downloads / "archives" / one.get("file", f"{name}.tgz")


def _keep(file: Path, place: Path) -> None:
    for _ in range(2):  # what is there may be collected until its time is now
        with suppress(FileNotFoundError):
            with suppress(FileExistsError):
                os.link(file, place)
            os.utime(place)
            return


def _is(path: Path, name: str) -> bool:
    """Whether the file at ``path`` has the digest ``name``, SHA-512 if it is long enough."""
    import hashlib

    try:
        with path.open("rb") as file:
            algorithm = "sha512" if len(name) == 128 else "sha256"
            return hashlib.file_digest(file, algorithm).hexdigest() == name
    except FileNotFoundError:
        return False
