"""What of a file system becomes a layer: links stay links, and no byte of the host gets in."""

from __future__ import annotations

import io
import socket
import tarfile
from contextlib import closing

import pytest

from container_kernel.build.step import Shell
from container_kernel.oci.changeset import encode
from container_kernel.store.store import Store
from container_kernel.transfer.archive import save
from container_kernel.transfer.load import load

pytestmark = pytest.mark.privileged
BELOW = "mkdir /d; echo shared > /d/one; ln /d/one /d/two; echo other > /d/plain"
ABOVE = """
ln /d/one /d/three; ln /d/plain /d/second
ln -s /etc/shadow /d/shadow; ln -s ../../../../../../proc/self/root /d/up
ln -s /work/secret /d/work
mknod /d/fifo p; echo x > /dev/shm/x; mkdir -p /proc-copy /d/mnt
ln -s /proc /d/proc; cat /proc/mounts > /dev/null
"""


def entries(store, snapshot):
    out = io.BytesIO()
    encode(snapshot.path, out.write, idmap=store.idmap, userxattr=store.userxattr)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {one.name: (one.type, one.linkname, one.size) for one in tar}


def test_row_87_links_stay_links_and_nothing_of_the_host_gets_in(bench, unique, folder, tmp_path):
    secret = unique.encode() * 9
    (folder / "secret").write_bytes(secret)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        bench.build("a", Shell(f"{unique}\n{BELOW}", net="none"))
        bench.build("b", Shell(f"{unique}\n{ABOVE}", net="none"))
    store, image = bench.workbench.store, bench.image()
    top = store.snapshots.chain(image.chain_id)[-1]
    file, hard, soft, made = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE
    assert entries(store, top) == {
        **dict.fromkeys(("d", "d/mnt", "proc-copy"), (made, "", 0)),
        "d/one": (file, "", 7),
        "d/three": (hard, "d/one", 0),
        "d/plain": (file, "", 6),
        "d/second": (hard, "d/plain", 0),
        "d/shadow": (soft, "/etc/shadow", 0),
        "d/up": (soft, "../../../../../../proc/self/root", 0),
        "d/work": (soft, "/work/secret", 0),
        "d/proc": (soft, "/proc", 0),
        "d/fifo": (tarfile.FIFOTYPE, "", 0),
    }
    path = tmp_path / "i.tar"
    save(image.digest, path, store=store)
    assert secret not in path.read_bytes()
    other = Store(tmp_path / "other", store.idmap, userxattr=store.userxattr)
    with closing(other):
        assert load(path, other)[0][1] == image.digest
        loaded = other.snapshots.chain(image.chain_id)[-1].path / "d"
        assert (loaded / "one").stat().st_ino == (loaded / "three").stat().st_ino
    assert bench.output("cat /d/one /d/two /d/three") == "shared\n" * 3
