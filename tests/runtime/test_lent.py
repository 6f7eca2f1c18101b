"""Containers of root on a host that lends root ids: all that holds of others, as nobody here.

What the other modules ask of containers is asked of these too.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from container_kernel import config, syscalls
from container_kernel.build.cancel import Cancel
from container_kernel.kernel.magics import build_items
from container_kernel.runtime import mounts, subordinate
from container_kernel.runtime.host import Host
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.live import Live
from container_kernel.runtime.relaxed import Relaxed
from container_kernel.runtime.wish import Wish
from container_kernel.store.shelf import Shelf
from container_kernel.workbench import Workbench
from tests.conftest import bases_in, workplace
from tests.lending import lent
from tests.read_only import mount_read_only
from tests.runtime.conftest import KINDS, Prober, probing
from tests.runtime.facts import read
from tests.runtime.hostile import Hostile
from tests.runtime.test_attach import *  # noqa: F403
from tests.runtime.test_escapes import *  # noqa: F403
from tests.runtime.test_isolation import *  # noqa: F403
from tests.runtime.test_rebase import *  # noqa: F403

if not subordinate.mapped().is_identity:
    reason = "it is root whom ids are lent here; a user's containers have those of the user"
    pytest.skip(reason, allow_module_level=True)
pytestmark = pytest.mark.privileged
START, COUNT = 3_000_000, 65_536
UNUSUAL = """%%build --net none
mkdir -p /a/b /c && touch /a/b/one /c/two && chown 7:8 /a/b/one && chmod 4755 /a/b/one
ln /a/b/one /a/hard; ln -s /a/b soft; chown -h 9:9 soft; mkfifo /a/fifo; chown -R 1000:1000 /c
rm -r /var && mkdir /var && touch /var/new; rm /bin/yes; rm -r /tmp && ln -s /c /tmp
chown 65535:65535 /a; echo more >> /etc/passwd"""


@pytest.fixture(scope="module", autouse=True)
def is_lent(entered):
    """A host that lends root ids, for what is started from here on."""
    run_dir = entered.run_dir
    modes = {folder: folder.stat().st_mode for folder in (run_dir.parent, run_dir)}
    for folder in modes:
        folder.chmod(0o711)  # as it is made where ids are lent
    with lent(f"somebody:100000:65536\nroot:{START}:{COUNT}\n"):
        yield
    for folder, mode in modes.items():
        folder.chmod(stat.S_IMODE(mode))


@pytest.fixture(scope="module")
def host(is_lent, entered, oci_runtime):
    return Host.open(entered, oci_runtime)


@pytest.fixture(scope="module")
def place(host, shared_store):
    return workplace(host, shared_store)


@pytest.fixture(scope="module")
def busybox(place, tmp_path_factory):
    bases = bases_in(place, tmp_path_factory.mktemp("notebook"))
    return bases.make("busybox", lambda text: None, Cancel())


@pytest.fixture(scope="module")
def prober(is_lent, variable, entered, oci_runtime, shared_home, probe):
    with probing(entered, oci_runtime, shared_home, probe) as prober:
        yield prober


@pytest.fixture(scope="module")
def hostile(place, prober):
    return Hostile(place, prober)


@pytest.fixture(scope="module", params=KINDS)
def found(request, prober):
    return prober.facts(request.param)


@pytest.fixture
def has_userns():
    return True


@pytest.mark.parametrize(("as_root", "uid"), [(True, START), (False, START + 1000)])
def test_who_runs_in_a_container_is_nobody_here(prober, as_root, uid):
    with prober.live(as_root=as_root) as live:
        container = live.start(["sleep", "100"])
        fields = Path(f"/proc/{container.pid}/status").read_text()
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in fields
        ids = Path(f"/proc/{container.pid}/uid_map").read_text().split()
    assert ids == ["0", str(START), str(COUNT)]


def test_a_build_step_is_root_of_its_image_and_of_nothing_here(prober, oci_runtime):
    script = f": {oci_runtime}; id -u; cat /proc/self/uid_map; ls -ln /etc/passwd"
    user, ids, listed = prober.build(f"%%build --net none\n{script}").splitlines()
    assert (user, ids.split()) == ("0", ["0", str(START), str(COUNT)])
    assert listed.split()[2:4] == ["0", "0"]


def test_a_layer_is_the_same_as_of_real_root(entered, oci_runtime, probe, tmp_path):
    """Owners, links, what is removed and what is replaced: in two stores, with and without."""
    made = set()
    for name, ids in (("lent", subordinate.of_root()), ("real", None)):
        environ = {"CONTAINER_KERNEL_HOME": str(tmp_path / name)}
        environ |= {"CONTAINER_KERNEL_RUNTIME": oci_runtime, "HOME": str(tmp_path)}
        bench = Workbench(config.load(environ), entered, probe.parent, parse=build_items)
        bench.host.ids = ids
        Prober(bench, probe).build(UNUSUAL)
        image = bench.image(on_event=lambda _: None, cancel=Cancel())
        made.add(image.layers[-1].diff_id)
        layer = bench.store.snapshots.chain(image.chain_id)[-1].path
        assert (layer / "a/b/one").stat().st_uid == 7  # on disk they are the image's
        assert (layer / "a").stat().st_uid == 65535
        bench.close()
    assert len(made) == 1


def test_a_working_directory_that_is_missing_is_made(prober, oci_runtime):
    prober.build(f"%workdir /not/there/{oci_runtime}")
    said = prober.build(f"%%build --net none\n: {oci_runtime}; pwd; ls -lnd /not")
    assert said.startswith("/not/there")
    assert said.split()[3] == "0"


def test_the_umask_shuts_no_container_out(hostile):
    """What it is given is made by us, and it is not of our user."""
    before = os.umask(0o077)
    try:
        hostile.place.host._made.clear()
        look = "id -u; find /run/site -type f | xargs cat > /dev/null; ls -ld /etc /run"
        said = hostile.build({}, look).splitlines()
        with hostile.live({}) as live:
            assert read(live.start(["id", "-u"])) == "1000\n"
    finally:
        os.umask(before)
    assert [line[:10] for line in said] == ["0", "drwxr-xr-x", "drwxr-xr-x"]


@pytest.mark.parametrize("owner", [0, 4321])
@pytest.mark.parametrize("as_root", [True, False])
def test_what_is_written_to_the_notebooks_folder_is_its_owners(
    host, shared_store, busybox, tmp_path, owner, as_root
):
    os.chown(tmp_path, owner, owner)
    wish = Wish(limits=Limits(pids=64), relaxed=Relaxed(as_root=as_root))
    live = Live(host, shared_store, busybox.chain_id, busybox.config, tmp_path, wish)
    try:
        read(live.start(["sh", "-c", "echo > new; mkdir more"]))
    finally:
        live.close()
    assert {(tmp_path / name).stat().st_uid for name in ("new", "more")} == {owner}


def test_a_capped_scratch_holds_and_is_frozen_with_the_images_owners(
    host, shared_store, busybox, tmp_path
):
    limits = Limits(pids=64, scratch_bytes=1 << 20)
    wish = Wish(limits=limits, relaxed=Relaxed(as_root=True))
    live = Live(host, shared_store, busybox.chain_id, busybox.config, tmp_path, wish)
    try:
        script = "echo > /etc/mine; chown 5 /etc/mine; cat /dev/zero > /big"
        assert "No space left" in read(live.start(["sh", "-c", f"({script}) 2>&1"]))
        active = live.copy_scratch()
        assert (active.upper / "etc/mine").stat().st_uid == 5
        shared_store.snapshots.remove(active)
    finally:
        live.close()


def test_what_is_written_beside_a_store_that_is_read_only_is_lent_too(
    host, entered, busybox, shared_store, tmp_path
):
    home = shared_store.home
    mount_read_only(home)
    shelf = Shelf(home, entered.idmap, userxattr=False)
    wish = Wish(limits=Limits(pids=64), relaxed=Relaxed(as_root=True))
    live = Live(host, shelf, busybox.chain_id, busybox.config, tmp_path, wish)
    try:
        container = live.start(["sh", "-c", "echo new > /etc/new; ls -ln /etc/new"])
        assert read(container).split()[2] == "0"
    finally:
        live.stop()
        live._forget()
        for place in (home / "active", home):
            syscalls.umount(str(place), syscalls.MNT_DETACH)


def test_a_mount_point_is_made_in_what_runs(host, shared_store, busybox, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").write_text("mine")
    wish = Wish(limits=Limits(pids=64), home=tmp_path / "home")
    live = Live(host, shared_store, busybox.chain_id, busybox.config, tmp_path, wish)
    try:
        live.start(["sleep", "100"])
        live.mount(mounts.parse("data:/new/place"))
        said = read(live.exec(["sh", "-c", "cat /new/place/mine; ls -lnd /new"]))
        assert said.startswith("mined")
        assert said.split()[2] == "0"
    finally:
        live.close()


def test_a_file_system_that_cannot_show_other_owners_has_none_lent(host, rootfs):
    """Such as an overlay; then containers are as where nothing is lent."""
    assert host.lends(rootfs.path) is None


def test_doctor_says_whose_ids_containers_have():
    done = subprocess.run(
        [sys.executable, "-m", "container_kernel", "doctor"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{START} to {START + COUNT - 1} of this host" in done.stdout


def test_a_folder_that_ids_cannot_pass_is_not_chosen(tmp_path):
    """What XDG_RUNTIME_DIR names is its user's alone, mostly."""
    (tmp_path / "x").mkdir(mode=0o700)
    argv = [sys.executable, "-m", "container_kernel", "exec", "--image", "busybox", "--", "id"]
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "x")}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert "uid=1000" in done.stdout, done.stderr


def test_the_hosts_dev_null_is_nobodys_inside(found):  # with what was found there
    assert os.stat("/dev/null").st_uid == 0
