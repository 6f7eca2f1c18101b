"""A store on file systems of other kinds: the same images, whole, collected and run."""

import os
import shutil
import subprocess

import pytest

from container_kernel import syscalls
from container_kernel.build.step import Base, Shell
from container_kernel.errors import StepFailed, StoreError
from container_kernel.record import replace
from container_kernel.store.check import check
from container_kernel.store.collect import collect
from container_kernel.store.usage import usage

pytestmark = pytest.mark.privileged
FLAGS = {"ext4": "-F", "xfs": "-f", "btrfs": "-f"}
FIRST = (
    "mkdir /data /d; echo one > /data/a; touch /d/x /data/c; ln /data/c /data/h; mknod /data/p p"
)
SECOND = "rm -r /d; mkdir /d; touch /d/y; rm /data/a; mv /data/h /data/g; chmod 4755 /data/c"


@pytest.fixture(scope="module")
def oci_runtime():
    """The store is what is looked at: one of them is enough."""
    return "crun"


@pytest.fixture(params=[*FLAGS, "tmpfs"])
def disk(request, tmp_path, entered):
    """A file system of that kind, seen by this process and its children only."""
    kind, place = request.param, tmp_path / "disk"
    place.mkdir()
    if kind == "tmpfs":
        syscalls.mount("tmpfs", str(place), "tmpfs", 0, "mode=700")
    elif entered.is_rootless:
        pytest.skip(f"only root mounts {kind}")
    elif shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(320 << 20)
        subprocess.run(
            [f"mkfs.{kind}", "-q", FLAGS[kind], str(image)], check=True, capture_output=True
        )
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    syscalls.umount(str(place), syscalls.MNT_DETACH)


def built(bench):
    bench.build("base", Base("busybox"))
    bench.build("a", Shell(FIRST, net="none"))
    bench.build("b", Shell(SECOND, net="none"))
    return bench.image().digest


def test_it_holds_the_same_images(disk, make_bench, settings):
    bench = make_bench(replace(settings, home=disk / "home"))
    digest = built(bench)
    assert digest == built(make_bench(settings))
    store = bench.workbench.store
    assert bench.output("ls /data /d").split() == ["/d:", "y", "/data:", "c", "g", "p"]
    assert check(store, full=True) == []
    loose = store.snapshots.prepare(None)
    (loose.upper / "file").write_text("loose")
    store.snapshots.remove(loose)
    assert collect(store, older_than_s=1e-6).in_use > 0
    assert usage(store).total > 0
    assert os.listdir(disk / "home/trash") == []


def test_a_step_that_fails_has_not_met_the_end_of_the_disk(disk, make_bench, settings):
    bench = make_bench(replace(settings, home=disk / "home"))
    bench.build("base", Base("busybox"))
    with pytest.raises(StepFailed) as failed:
        bench.build("a", Shell("exit 3", net="none"))
    assert "disk" not in str(failed.value)


@pytest.mark.parametrize("disk", ["btrfs"], indirect=True)
def test_row_37_a_quota_is_named(disk, make_bench, settings):
    place = disk / "granted"
    subprocess.run(["btrfs", "subvolume", "create", place], check=True, capture_output=True)
    bench = make_bench(replace(settings, home=place / "home"))
    bench.build("base", Base("busybox"))
    subprocess.run(["btrfs", "quota", "enable", disk], check=True)
    subprocess.run(["btrfs", "qgroup", "limit", "16M", place], check=True)
    with pytest.raises(StepFailed) as failed:
        bench.build("a", Shell("head -c 32m /dev/urandom >/big", net="none"))
    assert "disk" not in str(failed.value)  # it is not full; the program has said what it met
    (place / "more").write_bytes(os.urandom(1 << 20))
    with pytest.raises(OSError, match="quota"):
        (place / "most").write_bytes(os.urandom(32 << 20))
    subprocess.run(["sync", "-f", place], check=False)
    with pytest.raises(StoreError, match="quota") as refused:
        bench.build("a", Shell("true", net="none"))
    assert "have it raised" in refused.value.hint
    subprocess.run(["btrfs", "qgroup", "limit", "none", place], check=True)
    built(bench)
    assert check(bench.workbench.store, full=True) == []


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_row_37_missing_inodes_are_named(disk, make_bench, settings):
    bench = make_bench(replace(settings, home=disk / "home"))
    bench.build("base", Base("busybox"))
    used = os.statvfs(disk).f_files - os.statvfs(disk).f_ffree
    resize = f"nr_inodes={used + 40}"
    syscalls.mount("tmpfs", str(disk), flags=syscalls.MS_REMOUNT, data=resize)
    with pytest.raises(StepFailed, match="end of the disk"):
        bench.build("a", Shell("for i in $(seq 99); do echo x >/$i || exit 1; done", net="none"))
    for number in range(99):  # none is left for a folder of ours
        try:
            (disk / str(number)).touch()
        except OSError:
            break
    with pytest.raises(StoreError, match="No space left") as refused:
        bench.build("a", Shell("true", net="none"))
    assert "inodes" in refused.value.hint
    syscalls.mount("tmpfs", str(disk), flags=syscalls.MS_REMOUNT, data="nr_inodes=100k")
    built(bench)
    assert check(bench.workbench.store, full=True) == []
