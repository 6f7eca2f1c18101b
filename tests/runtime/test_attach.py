"""What may be mounted from where, and that nobody can exchange it on the way."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from container_kernel.errors import CellError, InputNotFound
from container_kernel.runtime import attach, mounts, volumes
from container_kernel.runtime.attach import Around, Attached, open_source
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.live import Live
from container_kernel.runtime.relaxed import Relaxed
from container_kernel.runtime.wish import Wish
from tests.kernel.conftest import until


@pytest.fixture
def around(tmp_path):
    """A notebook's folder, a home and a store; ``tmp_path/secret`` is none of the notebook's."""
    for name in ("notebook/data", "home/data", "store"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "mine").write_text("mine")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/canary").write_text("canary")
    return Around(tmp_path / "notebook", tmp_path / "home", tmp_path / "store")


def opened(source, around):
    """Where a source leads."""
    fd = open_source(source, around)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:/data", ("path", "data", "/data", False)),
        ("/srv/a:/data:rw", ("path", "/srv/a", "/data", True)),
        ("volume:models:/models", ("volume", "models", "/models", True)),
        ("volume:models://models/:ro", ("volume", "models", "/models", False)),
    ],
)
def test_a_mount_is_a_source_a_target_and_an_access(text, expected):
    wish = mounts.parse(text)
    assert (wish.kind, wish.source, wish.target, wish.is_writable) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("data", "data:", ":/data", "data:data", "data:/", "data:/a/../b", "data:/a:rw:rw"),
        *(f"data:/a:{option}" for option in ("suid", "dev", "exec", "shared", "ro,suid", "rw\n")),
        *("data:/a,upperdir=/etc", "data:/a\nb", "data:/a b", "data:/a\\b", "da\nta:/a", "a\0:/a"),
        *("data:/proc", "data:/sys/fs", "data:/dev/shm", "data:/run/secrets/x", "data:/work/x"),
        *("volume:../x:/a", "volume:A:/a", "volume::/a", "volume:a/b:/a"),
    ],
)
def test_row_138_what_is_not_on_the_list_of_options_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        mounts.parse(text)


@pytest.mark.parametrize("text", ["/a,size=1g", "/a\n", "a", "/", "/proc/x", "/a/../b"])
def test_a_tmpfs_has_no_options_but_its_size(text):
    with pytest.raises(ValueError, match="a target"):
        mounts.parse_tmpfs(text, 1024)


def test_sources_are_the_notebooks_or_absolute(around, tmp_path):
    assert opened("data", around) == str(tmp_path / "notebook/data")
    assert opened("~/data", around) == str(tmp_path / "home/data")
    assert opened(str(tmp_path / "secret"), around) == str(tmp_path / "secret")


@pytest.mark.parametrize("how", ["data/../../secret", "..", "{top}/notebook/../secret"])
def test_nothing_goes_up(around, tmp_path, how):
    with pytest.raises(InputNotFound, match=r"has \.\. in it"):
        opened(how.format(top=tmp_path), around)


@pytest.mark.parametrize("link", ["{top}/secret", "../secret", "/etc", "../../../../../../etc"])
@pytest.mark.parametrize("how", ["link", "{top}/notebook/link", "link/."])
def test_no_link_of_the_notebooks_folder_leads_outside(around, tmp_path, link, how):
    (around.notebook / "link").symlink_to(link.format(top=tmp_path))
    with pytest.raises(InputNotFound, match="cannot be mounted"):
        opened(how.format(top=tmp_path), around)


def test_a_link_inside_may_be_used(around):
    (around.notebook / "link").symlink_to("data")
    assert opened("link", around) == str(around.notebook / "data")


@pytest.mark.parametrize("source", ["/", "/proc", "/dev/null", "/sys", "/run", "{home}", "{store}"])
def test_some_places_are_never_mounted(around, source):
    with pytest.raises(InputNotFound, match="not mounted"):
        opened(source.format(home=around.home, store=around.store), around)


def test_the_stores_content_and_what_holds_the_home_are_not_mounted(around, tmp_path):
    (around.store / "content").mkdir()
    for source in (around.store / "content", tmp_path):
        with pytest.raises(InputNotFound, match="not mounted"):
            opened(str(source), around)


def test_a_socket_is_not_mounted(around):
    with socket.socket(socket.AF_UNIX) as docker:
        docker.bind(str(around.notebook / "docker.sock"))
        with pytest.raises(InputNotFound, match="neither a folder nor a file"):
            opened("docker.sock", around)


def test_row_135_a_source_exchanged_all_the_time_never_leads_outside(around, tmp_path):
    """By a process in another container that has the notebook's folder too."""
    a_folder, a_link = around.notebook / "a", around.notebook / "b"
    a_folder.mkdir()
    a_link.symlink_to(tmp_path / "secret")
    is_over = threading.Event()

    def exchange():
        while not is_over.is_set():
            os.rename(a_folder, around.notebook / "c")
            os.rename(a_link, a_folder)
            os.rename(a_folder, a_link)
            os.rename(around.notebook / "c", a_folder)

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                fd = open_source("a", around)
            except InputNotFound:
                seen.add("refused")
            else:
                seen.add(str(os.listdir(f"/proc/self/fd/{fd}")))
                os.close(fd)
    finally:
        is_over.set()
        thread.join()
    assert "['canary']" not in seen
    assert "[]" in seen


@pytest.mark.privileged
def test_what_was_opened_is_mounted_whatever_is_there_now(host, around, tmp_path):
    attached = Attached(host, around)
    attached.add(mounts.parse("data:/data"))
    (around.notebook / "data").rename(around.notebook / "gone")
    (around.notebook / "data").symlink_to(tmp_path / "secret")
    try:
        (mount,) = attached.mounts
        assert os.listdir(mount.source) == ["mine"]
        options = _options(mount.source)
        assert {"ro", "nosuid", "nodev"} <= options[0]
        assert options[1] == []  # neither shared nor a slave of anything
    finally:
        attached.close()
    assert not os.path.ismount(mount.source)


def _options(path):
    rows = [row.split() for row in Path("/proc/self/mountinfo").read_text().splitlines()]
    row = next(row for row in rows if row[4] == path)
    return set(row[5].split(",")), row[6 : row.index("-")]


@pytest.mark.parametrize(("one", "other"), [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")])
def test_targets_are_not_in_each_other(one, other):
    with pytest.raises(CellError, match="cannot be mounted on"):
        attach.check_target(mounts.parse(f"x:{one}"), [mounts.parse(f"y:{other}")])


@pytest.fixture
def live(host, shared_store, busybox, around):
    """A live container on busybox in the notebook's folder."""
    made = []

    def live(*wishes, **more):
        wish = Wish(
            limits=Limits(pids=64),
            mounts=tuple(mounts.parse(text) for text in wishes),
            home=around.home,
            **more,
        )
        config, chain = busybox.config, busybox.chain_id
        made.append(Live(host, shared_store, chain, config, around.notebook, wish))
        return made[-1]

    yield live
    for one in made:
        one.close()


def said(live, script, *, beside=False):
    """What a script says, as the first process or beside one."""
    argv = ["/bin/sh", "-c", f"({script}) 2>&1"]
    container = live.exec(argv) if beside else live.start(argv)
    container.wait()
    with open(container.stdout, closefd=False) as stdout:
        return stdout.read()


@pytest.mark.privileged
def test_a_container_sees_what_is_mounted_and_cannot_write_there(live, around):
    one = live("data:/data", "volume:of-a-test:/kept")
    assert said(one, "cat /data/mine; touch /data/x; echo > /kept/x; ls /kept") == (
        "minetouch: /data/x: Read-only file system\nx\n"
    )
    volumes.make(one._store.home, "of-a-test")
    with pytest.raises(CellError, match="in use"):
        volumes.remove(one._store.home, "of-a-test")
    one.stop()
    one._forget()
    volumes.remove(one._store.home, "of-a-test")
    assert "of-a-test" not in volumes.names(one._store.home)


@pytest.mark.privileged
def test_what_may_be_written_becomes_its_owners(live, around):
    said(live("data:/data:rw"), "echo new > /data/new")
    assert (around.notebook / "data/new").stat().st_uid == os.getuid()


@pytest.mark.privileged
def test_something_is_mounted_in_a_container_that_runs(live, around):
    one = live()
    container = one.start(["/bin/sh", "-c", "until [ -e /data/mine ]; do sleep 0.01; done; id -u"])
    one.mount(mounts.parse("data:/data"))
    assert container.wait(timeout_s=10).status == 0
    assert said(one, "cat /data/mine") == "mine"  # and in the next
    one.start(["/bin/sleep", "100"])
    assert "Read-only" in said(one, "touch /data/x", beside=True)
    one.unmount("/data")
    assert said(one, "ls /data", beside=True) == ""


@pytest.mark.privileged
@pytest.mark.parametrize("link", ["/etc", "../../../../../tmp"])
def test_a_link_where_something_is_to_be_mounted_is_not_followed(live, around, link):
    one = live("data:/tmp/data", relaxed=Relaxed(as_root=True))
    said(one, f"umount /tmp/data; rmdir /tmp/data; ln -s {link} /tmp/over")
    with pytest.raises(CellError, match="nothing can be mounted at /tmp/over"):
        one.mount(mounts.parse("data:/tmp/over"))
    one.attached.wishes.append(mounts.parse("data:/tmp/over"))
    with pytest.raises(CellError, match="nothing can be mounted at /tmp/over"):
        one.start(["true"])
    one.attached.wishes.pop()


@pytest.mark.privileged
def test_freezing_scratch_follows_no_link_and_keeps_no_mount_point(live, around, tmp_path):
    """`%freeze` drops /var/tmp and the like: of the container, never of the host."""
    one = live("data:/data", relaxed=Relaxed(as_root=True))
    one.mount(mounts.parse("data:/more"))
    said(one, f"rm -rf /var; ln -s {tmp_path} /var; mkdir -p /root; echo x > /root/x")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/canary").write_text("canary")
    active = one.copy_scratch()
    try:
        assert (tmp_path / "tmp/canary").read_text() == "canary"
        assert (active.upper / "root/x").exists()
        assert not (active.upper / "more").exists()
        assert (active.upper / "var").is_symlink()
    finally:
        one._store.snapshots.remove(active)


@pytest.mark.privileged
def test_row_135_many_are_mounted_while_somebody_exchanges_the_sources(live, around, tmp_path):
    """A second container swaps the source for a link as fast as it can while ours start."""
    (around.notebook / "data").chmod(0o777)
    around.notebook.chmod(0o777)
    swapper = live()
    script = f"""cd /work; mkdir good; ln -s {tmp_path}/secret bad; touch begun
        while :; do mv data keep; mv bad data; mv data bad; mv keep data; done"""
    swapper.start(["/bin/sh", "-c", script])
    until(lambda: (around.notebook / "begun").exists())
    seen: set[str] = set()
    end = time.monotonic() + 20
    while "mine\n" not in seen and time.monotonic() < end:
        try:
            seen.add(said(live("data:/data"), "ls /data"))
        except InputNotFound:
            seen.add("refused")
    swapper.stop()
    assert not any("canary" in one for one in seen)
    assert "mine\n" in seen
