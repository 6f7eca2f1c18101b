"""A small store with all kinds of things in it, and what it takes to make its layers again."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
from pathlib import Path

from container_kernel.oci.changeset import encode, tree_digest
from container_kernel.oci.digest import Digest
from container_kernel.oci.spec import Descriptor, ImageConfig, Manifest, MediaType
from container_kernel.oci.tar_writer import HeaderKeeper
from container_kernel.store.store import Store
from container_kernel.transfer.intake import host_platform
from container_kernel.transfer.unpack import unpack_layer

OPENED = 1_000_000_000


class Whole:
    """``one`` is an image of two layers built here, ``two`` another, ``three`` was imported."""

    def __init__(self, home: Path, entered) -> None:
        self.home = home
        self._entered = entered
        self.store = self.open()
        self.base = self.layer(None, "base", motd="hello", other="text")
        self.top = self.layer(self.base, "top", more="more")
        self.alone = self.layer(None, "alone", file="alone")
        self.one = self.image("one:1", self.base, self.top)
        self.two = self.image("two:1", self.alone)
        self.three = self.imported("three:1", "imported")
        self.store.index.remember_notebook("/n.ipynb", self.memory(self.one))

    def open(self) -> Store:
        """Open the store, as another process would."""
        idmap = self._entered.idmap
        self.store = Store(self.home, idmap, userxattr=self._entered.is_rootless)
        return self.store

    def reopen(self) -> Store:
        """Let go of all leases and open it anew."""
        self.store.close()
        return self.open()

    @staticmethod
    def memory(digest: Digest) -> str:
        return json.dumps({"current": "main", "cells": [], "image": str(digest)})

    def layer(self, parent, key, **files):
        """Freeze a layer and cache it under ``key``; the same again where it is not there."""
        store = self.store
        active = store.snapshots.prepare(parent.chain_id if parent else None)
        fill(active.upper, store, files)
        keeper = HeaderKeeper()
        how = {"idmap": store.idmap, "userxattr": store.userxattr}
        diff_id, size = tree_digest(active.upper, hasher=keeper, **how)
        headers = b"".join(keeper.headers)
        made = store.snapshots.commit(active, diff_id, size, key, headers=headers)
        store.remember_layer(Digest.of(key.encode()).hex, made, 0.5)
        return made

    def image(self, name, *layers):
        """An image of layers built here."""
        config = self.config(layer.diff_id for layer in layers)
        blobs = [Descriptor(MediaType.LAYER, layer.diff_id, layer.size) for layer in layers]
        digest = self.store.put_image(config, blobs)
        if name:
            self.store.tags.set(name, digest)
        return digest

    def imported(self, name, text):
        """An image of one compressed layer."""
        store = self.store
        active = store.snapshots.prepare(None)
        fill(active.upper, store, {"imported": text})
        out = io.BytesIO()
        encode(active.upper, out.write, idmap=store.idmap, userxattr=store.userxattr)
        store.snapshots.remove(active)
        # A foreign tar: our encoder does not write what follows the end.
        plain = out.getvalue() + bytes(1024)
        blob = store.content.put(gzip.compress(plain, mtime=0))
        diff_id = Digest.of(plain)
        active = store.snapshots.prepare(None)
        unpack_layer(
            store.content.path(blob.digest),
            active.upper,
            diff_id=diff_id,
            compression="gzip",
            idmap=store.idmap,
            userxattr=store.userxattr,
        )
        self.foreign = store.snapshots.commit(active, diff_id, len(plain), name)
        config = self.config([diff_id])
        layer = Descriptor(MediaType.LAYER_GZIP, blob.digest, blob.size)
        digest = store.put_image(config, [layer])
        store.tags.set(name, digest)
        return digest

    @staticmethod
    def config(diff_ids) -> ImageConfig:
        platform = host_platform()
        return ImageConfig(platform.architecture, platform.os, diff_ids=tuple(diff_ids))

    def manifest(self, digest) -> Manifest:
        return self.store.manifest(digest)

    def rebuild(self) -> None:
        """What running the notebook again does."""
        base = self.layer(None, "base", motd="hello", other="text")
        top = self.layer(base, "top", more="more")
        assert (base.chain_id, top.chain_id) == (self.base.chain_id, self.top.chain_id)
        assert self.image(None, base, top) == self.one


def fill(folder: Path, store: Store, files) -> None:
    root = store.idmap.to_disk(0)
    for name, text in files.items():
        path = folder / name
        path.write_text(text)
        os.chown(path, root, root)
        os.utime(path, (OPENED, OPENED))


def flip(path: Path, at: int = -1) -> None:
    """Flip one bit of a file; its size and its time stay."""
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def wait_for_a_tick() -> None:
    """Until the clock that stamps inodes has moved on."""
    time.sleep(0.02)
