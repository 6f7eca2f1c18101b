"""Archive: an image written to a file or folder that other tools read.

The file gets its name when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import StoreError, output_refused
from ..oci import tar_header as tar
from ..oci.digest import Digest
from ..oci.spec import REF_NAME, Descriptor, Index, MediaType
from ..oci.strict_json import canonical
from .outgoing import Outgoing, Write
from .output import destination, written_whole

if TYPE_CHECKING:
    from ..store.store import Store

OCI_ARCHIVE, DOCKER_ARCHIVE, OCI_FOLDER = "oci-archive", "docker-archive", "oci"
FORMATS = (OCI_ARCHIVE, DOCKER_ARCHIVE, OCI_FOLDER)
Member = tuple[str, int, Callable[[Write], object]]
"""A file in an archive: its name, its size, and what writes it."""


def save(
    image_digest: Digest,
    path: Path,
    format: str = OCI_ARCHIVE,
    *,
    store: Store,
    ref: str | None = None,
) -> None:
    """Write the image to ``path``, under the name ``ref`` if it has one.

    An existing file is replaced; an existing folder must be empty.

    Raises:
        StoreError: a layer of the image is missing or damaged; nothing is written.
        UsageError: ``path`` cannot be written.
    """
    image = Outgoing(store, image_digest)
    if format == OCI_FOLDER:
        target = destination(path, is_folder=True)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            _save_layout({image: ref}, _Folder(draft))
            _replace_folder(draft, target)
        except OSError as error:
            raise output_refused(path, error) from error
        finally:
            if draft.is_dir():
                shutil.rmtree(draft)
        return
    with _tar(path) as output:
        if format == DOCKER_ARCHIVE:
            _save_docker(image, output, ref)
        else:
            _save_layout({image: ref}, output)


def save_all(
    images: Sequence[Digest], path: Path, members: Iterable[Member], *, store: Store
) -> None:
    """Write several images, without names, and what else is given, to one OCI archive.

    Raises:
        StoreError: a layer of an image is missing or damaged; nothing is written.
        UsageError: ``path`` cannot be written.
    """
    with _tar(path) as output:
        for member in members:
            output.member(*member)
        _save_layout({Outgoing(store, digest): None for digest in images}, output)


@contextmanager
def _tar(path: Path) -> Iterator[_Tar]:
    """A tar that gets its name when it is whole."""
    with written_whole(path) as draft, draft.open("xb") as file:
        output = _Tar(file.write)
        yield output
        output.finish()
        file.flush()
        os.fsync(file.fileno())


class _Output(Protocol):
    """Where members are written to."""

    def member(self, name: str, size: int, write_to: Callable[[Write], object]) -> None: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def member(self, name: str, size: int, write_to: Callable[[Write], object]) -> None:
        place = self._root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            write_to(file.write)
            file.flush()
            os.fsync(file.fileno())


class _Tar:
    """A tar whose bytes depend on the image only."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def member(self, name: str, size: int, write_to: Callable[[Write], object]) -> None:
        self._write(tar.header(name.encode(), tar.FILE, mode=0o644, size=size))
        written = 0

        def count(piece: bytes | memoryview) -> None:
            nonlocal written
            written += len(piece)
            self._write(piece)

        write_to(count)
        if written != size:
            raise StoreError(f"{name} has {written} bytes, not the {size} it is known to have")
        self._write(bytes(tar.padding(size)))

    def finish(self) -> None:
        self._write(bytes(2 * tar.BLOCK))


def _save_layout(images: Mapping[Outgoing, str | None], output: _Output) -> None:
    """The blobs of all images, each once, and an index of them."""
    written: set[Digest] = set()

    def once(digest: Digest, size: int, write_to: Callable[[Write], object]) -> None:
        if digest not in written:
            written.add(digest)
            output.member(_blob_name(digest), size, write_to)

    for image in images:
        for number, layer in enumerate(image.manifest.layers):
            once(layer.digest, layer.size, partial(image.blob, number))
        for data in (image.config_data, image.manifest_data):
            once(Digest.of(data), len(data), partial(_write, data))
    described = tuple(_described(image, ref) for image, ref in images.items())
    _bytes(output, "index.json", Index(described, media_type=MediaType.INDEX).to_json())
    _bytes(output, "oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))


def _described(image: Outgoing, ref: str | None) -> Descriptor:
    return Descriptor(
        media_type=image.manifest.media_type,
        digest=image.digest,
        size=len(image.manifest_data),
        platform=image.config.platform,
        annotations={REF_NAME: ref} if ref else {},
    )


def _write(data: bytes, write: Write) -> None:
    write(data)


def _save_docker(image: Outgoing, output: _Output, ref: str | None) -> None:
    names = []
    for number, diff_id in enumerate(image.config.diff_ids):
        name = f"{diff_id.hex}.tar"
        if name not in names:
            output.member(name, *image.plain(number))
        names.append(name)
    config_name = f"{image.manifest.config.digest.hex}.json"
    _bytes(output, config_name, image.config_data)
    entry = {"Config": config_name, "RepoTags": [ref] if ref else None, "Layers": names}
    _bytes(output, "manifest.json", canonical([entry]))


def _bytes(output: _Output, name: str, data: bytes) -> None:
    output.member(name, len(data), partial(_write, data))


def _blob_name(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _replace_folder(draft: Path, path: Path) -> None:
    with suppress(FileNotFoundError):
        path.rmdir()
    draft.rename(path)
