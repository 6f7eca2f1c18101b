"""The content store: what it has is whole, durable and hashed."""

from __future__ import annotations

import io
import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from container_kernel import syscalls
from container_kernel.errors import BlobDamaged, BlobNotFound, ImageError, StoreError
from container_kernel.oci.digest import Digest
from container_kernel.store.content import Blob, ContentStore

HELLO = Digest.of(b"hello")


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


def leftovers(content: ContentStore) -> list[Path]:
    return list((content.root / "ingest").iterdir()) if content.root.exists() else []


def put_many(root: Path) -> None:
    for number in range(20):
        ContentStore(root).put(io.BytesIO(b"%d" % number * 10_000))


@pytest.mark.parametrize("source", [b"hello", io.BytesIO(b"hello")], ids=["bytes", "stream"])
def test_put_names_a_blob_by_its_bytes(content, source):
    assert content.put(source) == Blob(HELLO, 5)
    assert content.read(HELLO) == b"hello"
    assert (content.has(HELLO), content.size(HELLO)) == (True, 5)


def test_putting_twice_is_putting_once(content):
    content.put(b"hello")
    content.put(b"hello")
    content.put(io.BytesIO(b"hello"))
    assert list(content.walk()) == [Blob(HELLO, 5)]


def test_a_missing_blob_is_named(content):
    for use in (content.open, content.read, content.size, content.verify):
        with pytest.raises(BlobNotFound, match=HELLO.short):
            use(HELLO)
    assert not content.has(HELLO)
    assert list(content.walk()) == []


def test_deleting_is_final_and_may_be_repeated(content):
    content.put(b"hello")
    content.delete(HELLO)
    content.delete(HELLO)
    assert not content.has(HELLO)


@pytest.mark.parametrize("kind", [bytes, io.BytesIO])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expected": Digest.of(b"other")}, "other bytes"),
        ({"size": 4}, "more than 4 bytes"),
        ({"size": 6}, "has 5 bytes, its descriptor says 6"),
    ],
)
def test_wrong_bytes_are_refused_and_leave_nothing(content, kind, options, message):
    with pytest.raises(ImageError, match=message):
        content.put(kind(b"hello"), **options)
    assert list(content.walk()) == []
    assert leftovers(content) == []


def test_never_reads_far_past_the_size(content):
    endless = open("/dev/zero", "rb")  # noqa: SIM115
    with endless, pytest.raises(ImageError, match="more than 10 bytes"):
        content.put(endless, size=10)


def test_damage_is_found_on_read(content):
    content.put(b"hello")
    content.path(HELLO).write_bytes(b"jello")
    for use in (content.read, content.verify):
        with pytest.raises(BlobDamaged) as caught:
            use(HELLO)
        assert caught.value.found == Digest.of(b"jello")


@pytest.mark.parametrize("source", [b"hello", io.BytesIO(b"hello")], ids=["bytes", "stream"])
def test_putting_again_heals(content, source):
    content.put(b"hello")
    content.path(HELLO).write_bytes(b"jello")
    content.put(source)
    assert content.read(HELLO) == b"hello"


def test_reading_has_a_limit(content):
    content.put(b"hello")
    with pytest.raises(ImageError, match="longer than 4"):
        content.read(HELLO, limit=4)


@pytest.mark.parametrize("umask", [0, 0o077])
def test_only_the_owner_can_reach_it(content, umask):
    old = os.umask(umask)
    try:
        content.put(b"hello")
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in content.root.rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert modes[content.path(HELLO)] == 0o600
    assert stat.S_IMODE(content.root.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder"])
def test_only_plain_files_are_opened(content, tmp_path, kind):
    content.create()
    place = content.path(HELLO)
    if kind == "symlink":
        (tmp_path / "secret").write_bytes(b"hello")
        place.symlink_to(tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(StoreError, match="not a plain file"):
        content.read(HELLO)


def test_strangers_in_the_folder_are_passed_over(content):
    content.put(b"hello")
    (content.path(HELLO).parent / "README").touch()
    assert [blob.digest for blob in content.walk()] == [HELLO]


def test_several_processes_may_put_the_same(content):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=put_many, args=(content.root,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len([content.verify(blob.digest) for blob in content.walk()]) == 20
    assert leftovers(content) == []


@pytest.mark.privileged
def test_a_full_disk_is_named_and_loses_nothing(tmp_path):
    """The same again once there is space."""
    syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=1m")
    try:
        content = ContentStore(tmp_path / "store")
        content.put(b"hello")
        with pytest.raises(StoreError, match=r"No space left(?s:.*)hint: free space"):
            content.put(io.BytesIO(bytes(5 << 20)))
        assert leftovers(content) == []
        assert content.read(HELLO) == b"hello"
        content.put(io.BytesIO(bytes(100_000)))
    finally:
        syscalls.umount(str(tmp_path))


def test_a_failing_disk_is_named_and_loses_nothing(content):
    content.put(b"hello")
    code = f"""
import io, resource, signal
from pathlib import Path
from container_kernel import syscalls
from container_kernel.errors import StoreError
from container_kernel.store.content import ContentStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    ContentStore(Path({str(content.root)!r})).put(io.BytesIO(bytes(5000)))
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert [blob.digest for blob in content.walk()] == [HELLO]
    assert leftovers(content) == []
