"""The content store when the disk refuses or the process dies, at every call that matters."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container_kernel.oci.digest import Digest
from container_kernel.store.content import ContentStore

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

OLD, NEW = b"old", b"new" * 1000
PUT = """
import io, sys
sys.path[:] = {path!r}
from pathlib import Path
from container_kernel.errors import StoreError
from container_kernel.store.content import ContentStore
try:
    ContentStore(Path({root!r})).put(io.BytesIO(b"new" * 1000))
except StoreError as error:
    sys.exit(f"StoreError: {{error}}")
print("stored")
"""


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    store = ContentStore(tmp_path / "store")
    store.put(OLD)
    return store


def put_with(fault: str, content: ContentStore) -> subprocess.CompletedProcess[str]:
    """Put ``NEW`` in a process of its own that meets ``fault``, in strace's words."""
    code = PUT.format(path=sys.path, root=str(content.root))
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}"]
    command = [*strace, sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["fsync:when=1", "fsync:when=2", "rename:when=1"])
def test_an_error_is_told_and_never_taken_for_success(content, call, error):
    name, _, when = call.partition(":")
    done = put_with(f"{name}:error={error}:{when}", content)
    assert "StoreError" in done.stderr
    assert "stored" not in done.stdout
    check(content)


@pytest.mark.parametrize("call", ["fsync:when=1", "fsync:when=2", "rename:when=1", "fchmod:when=1"])
def test_a_kill_leaves_whole_blobs_only(content, call):
    name, _, when = call.partition(":")
    done = put_with(f"{name}:signal=KILL:{when}", content)
    assert "stored" not in done.stdout
    check(content)


def check(content: ContentStore) -> None:
    """Every blob with a name is whole, the old one is there, and a second try works."""
    assert Digest.of(OLD) in {blob.digest for blob in content.walk()}
    for blob in content.walk():
        assert content.verify(blob.digest) == blob.size
    content.put(NEW)
    assert content.read(Digest.of(NEW)) == NEW
