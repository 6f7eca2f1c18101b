"""Slug: an image, or one layer of it, as one file that is mounted instead of unpacked.

A SquashFS or EROFS of the image's root file system, with the image config behind it: the file
system ends where its superblock says, and who mounts it does not see what follows. The same image
gives the same bytes, so a slug has a known SHA-256.

    file system, padded to 4096 bytes | image config | its length (8 bytes) | mark (16 bytes)

The slug of a layer says what it removes as overlayfs does, root's and any user's, and is the same
whoever makes it. It is mounted on the layers below it, which its config names and the store must
have.

A slug is read by the host kernel, which trusts file systems more than it should: mount only those
whose maker or digest is known. ``PATH@sha256:…`` is checked before it is mounted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO

from ..errors import HostError, ImageError, StoreError, UsageError
from ..oci.changeset import encode
from ..oci.digest import Digest, chain_id
from ..oci.spec import ImageConfig
from ..oci.strict_json import MAX_BYTES
from ..record import record, replace
from ..store.snapshots import Snapshot
from ..store.store import Store
from ..transfer.output import written_whole
from . import overlay
from .host import Host, find_tool

SQUASHFS, EROFS = "sqfs", "erofs"
FORMATS = (SQUASHFS, EROFS)
_MARK, _LAYER_MARK = b"container-kernel", b"container-layer\n"
_PAGE = 4096
_ZSTD_LEVEL = 3
_TAIL = 8 + len(_MARK)
_SQUASHFS_MAGIC = b"hsqs"
_EROFS_MAGIC = b"\xe2\xe1\xf5\xe0"
_KINDS = {SQUASHFS: "squashfs", EROFS: "erofs"}
_FUSE = {SQUASHFS: "squashfuse", EROFS: "erofsfuse"}
_PACKAGES = {SQUASHFS: "squashfs-tools", EROFS: "erofs-utils"}


@record
class Slug:
    """A slug that is mounted: the config of its image, and the name its tree has here."""

    config: ImageConfig
    chain_id: Digest
    size: int


# ---------------------------------------------------------------- making


def make(
    store: Store, image: Digest, path: Path, format: str = SQUASHFS, *, layer: int = 0
) -> Digest:
    """Write the image, or only its n-th ``layer``, to the slug ``path``; the SHA-256 of the file.

    Raises:
        HostError: the tool for it is not installed, or cannot keep owners here.
        StoreError: a layer is missing, or the tool failed.
        UsageError: ``path`` cannot be written.
    """
    config = store.image_config(store.manifest(image))
    with written_whole(path) as draft:
        if format == EROFS:
            _check_owners(store)
        if layer:
            config = _up_to(config, layer)
            _make_layer(store, config, draft, format)
        else:
            with _merged(store, config) as root:
                if format == SQUASHFS:
                    _make_squashfs(store, root, draft, for_overlay=False)
                else:
                    _make_erofs(store, root, draft, image)
        with draft.open("r+b") as file:
            _append(file, config.to_json(), _LAYER_MARK if layer else _MARK)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
    return digest


def _up_to(config: ImageConfig, layer: int) -> ImageConfig:
    """The image that ends with that layer."""
    if not 0 < layer <= len(config.diff_ids):
        raise UsageError(f"the image has no layer {layer}: it has {len(config.diff_ids)}")
    return replace(config, diff_ids=config.diff_ids[:layer], history=())


def _make_layer(store: Store, config: ImageConfig, draft: Path, format: str) -> None:
    whole = store.image_chain(config)
    tree = store.snapshots.chain(whole)[-1].path
    if format == SQUASHFS:
        _make_squashfs(store, tree, draft, for_overlay=True)
        return
    # mkfs.erofs reads no tar, and the folder of the layer has marks and times of this store's own.
    with _folder(store) as place:
        plain, target = place / "layer.sqfs", place / "root"
        _make_squashfs(store, tree, plain, for_overlay=True)
        target.mkdir()
        _mount(plain, target, SQUASHFS, is_root=not store.userxattr)
        try:
            _make_erofs(store, target, draft, whole)
        finally:
            overlay.unmount(target)


def _check_owners(store: Store) -> None:
    if not store.idmap.is_identity:
        raise HostError(
            "an EROFS slug would have this user's ids instead of the image's",
            hint="make it as root, or make a SquashFS: --format sqfs",
        )


@contextmanager
def _folder(store: Store) -> Iterator[Path]:
    """A folder for as long as a slug is made."""
    place = Path(mkdtemp(prefix=".slug-", dir=store.home))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _merged(store: Store, config: ImageConfig) -> Iterator[Path]:
    """All layers of an image as one tree, mounted for a while."""
    layers = store.snapshots.chain(store.image_chain(config))
    with _folder(store) as place:
        empty, target = place / "empty", place / "root"
        empty.mkdir()
        target.mkdir()
        paths = [empty, *(layer.path for layer in layers)]
        folder, userxattr = store.snapshots.folder, store.userxattr
        overlay.mount_readonly(folder, paths, target, userxattr=userxattr)
        try:
            yield target
        finally:
            overlay.unmount(target)


def _make_squashfs(store: Store, root: Path, draft: Path, *, for_overlay: bool) -> None:
    """From a tar of ours: owners are the image's, whatever they are on this disk."""
    options = f"-tar -noappend -quiet -no-progress -comp zstd -Xcompression-level {_ZSTD_LEVEL}"
    fixed = "-root-mode 755 -root-uid 0 -root-gid 0"
    argv = [str(_tool("mksquashfs", SQUASHFS)), "-", str(draft), *options.split(), *fixed.split()]
    making = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"SOURCE_DATE_EPOCH": str(_newest(root))},
    )
    assert making.stdin is not None
    try:
        with making.stdin as tar:
            idmap, userxattr = store.idmap, store.userxattr
            encode(root, tar.write, idmap=idmap, userxattr=userxattr, for_overlay=for_overlay)
    except BrokenPipeError:
        pass  # it ended early, and says why
    except BaseException:
        making.kill()
        raise
    finally:
        making.stdin = None  # closed
        said = making.communicate()[1]
    _check(making.returncode, said, "mksquashfs")


def _newest(root: Path) -> int:
    """The latest time in the tree: what a tool sets to "now" becomes that, and nothing else.

    That of a whiteout is when it was made here, and no part of the image.
    mksquashfs has no other way to give the root folder of a tar a time (4.5.1 takes -root-time and
    forgets it).
    """
    found = 0.0
    for folder, _, names in os.walk(root):
        for name in names if folder == os.fspath(root) else (".", *names):
            info = os.lstat(os.path.join(folder, name))
            if not (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):
                found = max(found, info.st_mtime)
    return min(int(found), 0xFFFFFFFF)


def _make_erofs(store: Store, root: Path, draft: Path, digest: Digest) -> None:
    name = str(uuid.uuid5(uuid.NAMESPACE_OID, str(digest)))
    options = ["-zlz4", "--preserve-mtime", f"-U{name}", "--quiet"]
    if not _has_attributes(root):
        options.append("-x-1")  # or it asks for them, and fails
    argv = [str(_tool("mkfs.erofs", EROFS)), *options, str(draft), str(root)]
    made_at = {"SOURCE_DATE_EPOCH": str(_newest(root))}  # later times would be set to it
    done = subprocess.run(argv, capture_output=True, check=False, env=made_at)
    _check(done.returncode, done.stderr, "mkfs.erofs")


def _has_attributes(root: Path) -> bool:
    """False in a SquashFS none of whose files has any."""
    try:
        os.listxattr(root)
    except OSError:
        return False
    return True


def _tool(name: str, format: str) -> Path:
    found = find_tool(name)
    if found is None:
        raise HostError(
            f"{name} is not installed", hint=f"install it: sudo apt install {_PACKAGES[format]}"
        )
    return found


def _check(status: int, said: bytes, name: str) -> None:
    if status:
        tail = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise StoreError(f"{name} ended with {status}: {tail}")


def _append(file: BinaryIO, config: bytes, mark: bytes) -> None:
    size = file.seek(0, os.SEEK_END)
    file.write(bytes(-size % _PAGE) + config + len(config).to_bytes(8, "little") + mark)


# ---------------------------------------------------------------- mounting


def is_slug(reference: str) -> bool:
    """True when it is the path of a slug by its ending."""
    return reference.partition("@")[0].endswith((".sqfs", ".squashfs", ".erofs"))


def attach(host: Host, store: Store, reference: str, directory: Path) -> Slug:
    """Mount a slug, ``PATH`` or ``PATH@sha256:…``, until this process ends.

    From then on the store knows its tree by the chain ID that is returned; nothing is unpacked.

    Raises:
        ImageError: it is no slug, or not the one the digest names.
        StoreError: it is of a layer, and the store lacks one below.
        HostError: it cannot be mounted here.
    """
    name, _, wanted = reference.partition("@")
    path = (directory / Path(name).expanduser()).resolve()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"{name} is not a plain file")
    with os.fdopen(fd, "rb") as file:
        if wanted:
            _compare(file, name, wanted)
        (config, is_layer), kind = _config(file, name), _kind(file, name)
        status = os.fstat(fd)
    parent = _below(store, config, name) if is_layer else None
    target = host.new_folder("slug")
    _mount(path, target, kind, is_root=not store.userxattr)
    here = f"slug {status.st_dev} {status.st_ino} {status.st_mtime_ns} {status.st_size}"
    chain = Digest.of(here.encode())
    store.snapshots.lend(Snapshot(chain, parent, chain, status.st_size, name, target))
    return Slug(config, chain, status.st_size)


def _below(store: Store, config: ImageConfig, name: str) -> Digest | None:
    """What the layer of a slug stands on, which stays in the store meanwhile."""
    below = config.diff_ids[:-1]
    return store.snapshots.chain(chain_id(below))[-1].chain_id if below else None


def _compare(file: BufferedReader, name: str, wanted: str) -> None:
    found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise ImageError(f"{name} has another digest\n  expected {wanted}\n  found    {found}")


def _config(file: BinaryIO, name: str) -> tuple[ImageConfig, bool]:
    """The image config behind the file system, and whether it is a layer's."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:8], "little")
    if tail[8:] not in (_MARK, _LAYER_MARK) or not 0 < length <= min(MAX_BYTES, end - _TAIL):
        raise ImageError(
            f"{name} is no slug of ours: it has no image config at its end",
            hint="make one: container-kernel image save IMAGE -o FILE.sqfs --format sqfs",
        )
    file.seek(end - _TAIL - length)
    return ImageConfig.from_json(file.read(length)), tail[8:] == _LAYER_MARK


def _kind(file: BinaryIO, name: str) -> str:
    file.seek(0)
    head = file.read(2048)
    if head[:4] == _SQUASHFS_MAGIC:
        return SQUASHFS
    if head[1024:1028] == _EROFS_MAGIC:
        return EROFS
    raise ImageError(f"{name} is neither a SquashFS nor an EROFS")


def _mount(path: Path, target: Path, kind: str, *, is_root: bool) -> None:
    """By the host kernel as root; by FUSE where a user has that."""
    if is_root:
        options = ["-t", _KINDS[kind], "-o", "loop,ro,nodev"]
        _run(["mount", *options, path, target], f"{path.name} cannot be mounted")
        return
    program = find_tool(_FUSE[kind])
    if program is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        lack = f"{_FUSE[kind]} is not installed" if program is None else "/dev/fuse is not open"
        raise HostError(
            f"an ordinary user mounts a slug by FUSE, and {lack}",
            hint="make it a SquashFS: --format sqfs"
            if program is None and kind == EROFS
            else "load the image as an archive instead, or ask your administrator for FUSE",
        )
    # FUSE shows the image's ids as they are, and here they are other ones: all is root's.
    owner = ["-o", "uid=1,gid=1"] if kind == SQUASHFS else []
    _run([program, *owner, path, target], f"{path.name} cannot be mounted")


def _run(argv: Sequence[str | Path], what: str) -> None:
    done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise HostError(f"{what}: {tail or done.returncode}")
