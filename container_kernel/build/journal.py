"""Journal: which layers were made for a cache key, and of what.

One small file per key, beside the index: what the key is made of, and for each layer ever made
for it the packages and files that went in. Losing it loses explanations and locks, never a layer.
Packages that have no cache by digest of their own (Debian's, npm's) are kept here by digest too.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.digest import Digest
from ..store.places import INPUTS
from ..store.small_files import write_whole

if TYPE_CHECKING:
    from .archives import Archives
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
        kept = _files(inputs)
        if not kept:
            return
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        from .archives import Archives  # for those who install packages

        with Archives(downloads) as archives:
            for name, file in kept:
                with suppress(OSError):  # what cannot be kept is fetched again
                    _keep(archives, file, self._kept / name)

    def bring(self, inputs: Sequence[Input], downloads: Path) -> None:
        """Put kept packages where package managers look for what was downloaded."""
        wanted = _files(inputs)
        if not wanted:
            return
        from .archives import Archives

        with Archives(downloads) as archives:
            for name, file in wanted:
                with suppress(OSError):
                    if not archives.has(file, name):
                        archives.remove(file)
                        self._bring(archives, file, name)

    def _bring(self, archives: Archives, file: str, name: str) -> None:
        from .archives import has_digest

        kept = self._kept / name
        if has_digest(kept, name):
            os.utime(kept)  # when it was used last
            archives.take(file, kept)

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


def _files(inputs: Sequence[Input]) -> list[tuple[str, str]]:
    """What each package is kept as, and what it is called where it was downloaded."""
    named = ((kept_as(one), one) for one in inputs)
    return [(name, one.get("file", f"{name}.tgz")) for name, one in named if name]


def _keep(archives: Archives, file: str, place: Path) -> None:
    for _ in range(2):  # what is there may be collected until its time is now
        with suppress(FileNotFoundError):
            with suppress(FileExistsError):
                archives.link(file, place)
            os.utime(place, follow_symlinks=False)
            return
