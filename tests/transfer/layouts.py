"""Images as files for the tests: right ones, and ones with one thing wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def text(value: object) -> bytes:
    return json.dumps(value).encode()


MTIME = 1_600_000_000


def layer_tar(files: dict[str, bytes]) -> bytes:
    """A plain layer; a name with "/" at its end is a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.mode, info.mtime = 0o755, MTIME
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Layout:
    """An OCI layout being made: ``blobs`` by digest, ``index`` as a document."""

    def __init__(self, *tars: bytes, compress: bool = False, **config) -> None:
        self.blobs: dict[str, bytes] = {}
        self.tars = tars
        packed = [gzip.compress(tar, mtime=0) if compress else tar for tar in tars]
        media_type = LAYER + "+gzip" * compress
        self.layers = [self.add(data, media_type) for data in packed]
        self.config = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
        } | config
        self.manifest: dict = {"schemaVersion": 2, "mediaType": MANIFEST}
        self.index: dict = {"schemaVersion": 2, "mediaType": INDEX}
        self.ref = "example:1.0"
        self.finish()

    def add(self, data: bytes, media_type: str, **fields) -> dict:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)} | fields

    def finish(self) -> Layout:
        """Write config, manifest and index anew from their parts."""
        self.manifest["config"] = self.add(text(self.config), CONFIG)
        self.manifest["layers"] = self.layers
        name = {"annotations": {"org.opencontainers.image.ref.name": self.ref}}
        self.index["manifests"] = [self.add(text(self.manifest), MANIFEST, **name)]
        return self

    @property
    def descriptor(self) -> dict:
        return self.index["manifests"][0]

    def files(self) -> dict[str, bytes]:
        return {
            "oci-layout": text({"imageLayoutVersion": "1.0.0"}),
            "index.json": text(self.index),
        } | {f"blobs/{name.replace(':', '/')}": data for name, data in self.blobs.items()}

    def write(self, folder: Path) -> Path:
        for name, data in self.files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    def archive(self, path: Path) -> Path:
        path.write_bytes(layer_tar(self.files()))
        return path


def docker_archive(*tars: bytes, names=("example:1.0",), **config) -> dict[str, bytes]:
    """The members of what ``docker save`` writes."""
    layout = Layout(*tars, **config)
    config_data = text(layout.config)
    layers = [f"{number}/layer.tar" for number in range(len(tars))]
    entry = {
        "Config": digest(config_data)[7:] + ".json",
        "RepoTags": list(names) or None,
        "Layers": layers,
    }
    return {
        "manifest.json": text([entry]),
        entry["Config"]: config_data,
        **dict(zip(layers, tars, strict=True)),
    }
