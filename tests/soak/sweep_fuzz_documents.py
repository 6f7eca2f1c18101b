"""Hostile layouts: a document with something wrong in it is refused, or means what it says.

A case is an OCI layout with one to three changes somewhere in its documents or blobs. It is either
refused by name, and then no image of it is in the store, or every digest in it holds.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from container_kernel.errors import ImageError
from container_kernel.oci.idmap import IdMap
from container_kernel.oci.spec import Manifest
from container_kernel.store.store import Store
from container_kernel.transfer.load import load
from tests.transfer.layouts import INDEX, LAYER, MANIFEST, Layout, digest, layer_tar, text

CASES, SAMPLE = 20_000, 10
TARS = layer_tar({"a": b"a"}), layer_tar({"b": b"b"})
VALUES = [
    *(None, True, 0, -1, 1 << 62, 1 << 70, 1.5, "", "x", "\0", "../../x", [], {}, [[]], [None]),
    *(digest(b""), digest(b"").upper(), "sha256:../../x", "sha512:" + "0" * 128, "sha256:"),
    *(LAYER, LAYER + "+gzip", LAYER + "+zstd", MANIFEST, INDEX, "application/octet-stream"),
]
RAW = [b"", b"[]", b"null", b"{", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"a":1,"a":2}', b"NaN"]
RAW += [b"[" * 3000, b'{"schemaVersion":' + b"9" * 5000 + b"}", b'{"x":"\\ud800"}']


def places(value: object) -> Iterator[tuple[dict | list, object]]:
    """Every place in a document where a value could be another."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in list(pairs):
        yield value, key
        if isinstance(below, dict | list):
            yield from places(below)


def change(document: dict, chance: random.Random) -> None:
    owner, key = chance.choice(list(places(document)))
    what = chance.randrange(5)
    if what == 0 and isinstance(owner, dict):
        owner[str(key).swapcase()] = owner[key]
    elif what == 1 and isinstance(owner, dict):
        del owner[key]
    elif what == 2 and isinstance(owner, list):
        owner.append(owner[key])
    else:
        owner[key] = chance.choice(VALUES)


def damage(layout: Layout, chance: random.Random) -> None:
    """Change the config, the manifest or the index; what names it may go along or not."""
    which = chance.choice(["config", "manifest", "index", "blob", "raw"])
    if which == "config":
        change(layout.config, chance)
        layout.finish()
    elif which == "manifest":
        change(layout.manifest, chance)
        layout.index["manifests"] = [layout.add(text(layout.manifest), MANIFEST)]
    elif which == "index":
        change(layout.index, chance)
    else:
        name = chance.choice(list(layout.blobs))
        data = bytearray(layout.blobs[name])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        layout.blobs[name] = bytes(data) if which == "blob" else chance.choice(RAW)


def write(layout: Layout, folder: Path, chance: random.Random) -> Path:
    folder.mkdir()
    layout.blobs = {n: d for n, d in layout.blobs.items() if "/" not in n}
    layout.write(folder)
    if not chance.randrange(10):
        name = chance.choice(["index.json", "oci-layout"])
        (folder / name).write_bytes(chance.choice(RAW))
    return folder


def check(store: Store, layout: Layout, found: list) -> None:
    """What was taken is whole, and is what its digests say."""
    for _, image in found:
        manifest = Manifest.from_json(store.content.read(image))
        config = store.image_config(manifest)
        for layer in manifest.layers:
            assert store.content.verify(layer.digest) == layer.size
        assert len(store.snapshots.chain(store.image_chain(config))) == len(manifest.layers)


@contextmanager
def opened() -> Iterator[Callable[[int, random.Random], None]]:
    def case(_number: int, chance: random.Random) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-documents-") as name:
            folder = Path(name)
            store = Store(folder / "home", IdMap.single(), userxattr=True)
            layout = Layout(*TARS, compress=bool(chance.randrange(2)))
            try:
                for _ in range(chance.randrange(1, 4)):
                    damage(layout, chance)
            except (TypeError, LookupError, AttributeError, ValueError):
                store.close()
                return  # the first change left nothing for the second
            try:
                check(store, layout, load(write(layout, folder / "layout", chance), store))
            except ImageError:
                known = {str(blob.digest) for blob in store.content.walk()}
                named = [one.get("digest") for one in _listed(layout) if isinstance(one, dict)]
                assert not [one for one in named if isinstance(one, str) and one in known]
            finally:
                store.close()

    yield case


def _listed(layout: Layout) -> list:
    found = json.loads(text(layout.index)).get("manifests")
    return found[:1] if isinstance(found, list) else []
