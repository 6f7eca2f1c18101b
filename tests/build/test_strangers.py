"""Threats, group I: what steps read and write where the host reads too, and who exchanges it.

A canary is a folder of the host that a link or a name points at; it stays as it is.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from hashlib import sha256

import pytest

from container_kernel.build import bundle, inputs, make
from container_kernel.build.archives import Archives
from container_kernel.build.events import StepLog, StepStarted
from container_kernel.build.graph import key_of, key_parts
from container_kernel.build.journal import Journal
from container_kernel.build.packages import Installation
from container_kernel.build.step import Copy, Packages, Shell
from container_kernel.errors import InputNotFound, StepFailed
from container_kernel.oci.digest import Digest
from container_kernel.oci.spec import ImageConfig
from container_kernel.record import replace
from container_kernel.runtime import mounts
from container_kernel.store.check import check

pytestmark = pytest.mark.privileged
DEB = b"a package"
DIGEST = sha256(DEB).hexdigest()


# ---------------------------------------------------------------- what a step tells of packages


def text(content):
    return lambda path: path.write_text(content)


def link_to(target):
    return lambda path: path.symlink_to(target)


@pytest.fixture
def told(place):
    """What a step of a package manager is to have told; what is made of it."""
    made = []

    def told(manager, **files):
        install = Installation(Packages(manager, ("x",)), place, Journal(place.store.home), None)
        made.append(install)
        folder = install.command({}, {}).answers["/run/told"]
        for name, write in files.items():
            write(folder / name.replace("_", "."))
        return install.taken()

    yield told
    for install in made:
        install.close()


def test_row_136_a_package_has_the_digest_and_the_name_of_one(told, place):
    (place.store.cache_folder("apt") / "archives").mkdir(exist_ok=True)
    (one,) = told("apt", wanted=text(f"x_1%3a2_all.deb 9 {DIGEST}\n"))
    assert (one["name"], one["version"], one["digest"]) == ("x", "1:2", f"sha256:{DIGEST}")


@pytest.mark.parametrize(
    ("manager", "files"),
    [
        ("apt", {"wanted": text("x_1_all.deb 9 ../../../../canary/new\n")}),
        ("apt", {"wanted": text(f"../../../canary/x_1_all.deb 9 {DIGEST}\n")}),
        ("apt", {"wanted": text("x\n")}),
        ("apt", {"wanted": os.mkfifo}),
        ("apt", {"wanted": link_to("/etc/passwd")}),
        ("apt", {"wanted": lambda path: path.mkdir()}),
        ("pip", {"pylock_toml": text("packages = 1")}),
        ("pip", {"pylock_toml": text('[[packages]]\nname = "a;b"\nversion = "1"')}),
        ("pip", {"pylock_toml": text("x = " + "[" * 10**5)}),
        ("npm", {"npm_json": text("[" * 10**5)}),
        ("npm", {"npm_json": text('{"dependencies": 1}')}),
        ("npm", {"npm_json": text("\0")}),
        ("npm", {"npm_json": lambda path: path.write_bytes(b"\xff\xfe")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_row_136_what_a_script_of_a_package_wrote_there_is_not_believed(
    told, canary, manager, files
):
    """It became the two names of a hard link that the host made, wherever they led."""
    with pytest.raises(StepFailed, match="what it says of the packages it took is wrong"):
        told(manager, **files)


@pytest.fixture
def journal(tmp_path, canary):
    """A journal, and the cache of packages that steps write to."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    return Journal(tmp_path), downloads


ONE = {"kind": "deb", "file": "x_1_all.deb", "digest": f"sha256:{DIGEST}"}


def test_a_package_is_kept_and_brought_back(journal):
    own, downloads = journal
    (downloads / "archives").mkdir()
    deb = downloads / "archives/x_1_all.deb"
    deb.write_bytes(DEB)
    own.keep([ONE], downloads)
    for spoilt in (None, text("other bytes"), link_to("/etc/passwd"), os.mkfifo):
        deb.unlink()
        if spoilt:
            spoilt(deb)
        own.bring([ONE], downloads)
        assert deb.read_bytes() == DEB, spoilt


def test_row_131_a_cache_that_a_step_made_a_link_of_leads_nowhere(journal, canary, tmp_path):
    own, downloads = journal
    (tmp_path / "downloads/inputs").mkdir()
    (tmp_path / "downloads/inputs" / DIGEST).write_bytes(DEB)
    (downloads / "archives").symlink_to(canary)
    own.bring([ONE, {**ONE, "file": "file"}], downloads)
    assert (downloads / "archives/x_1_all.deb").read_bytes() == DEB
    with Archives(downloads) as archives, pytest.raises(ValueError, match="is no file's name"):
        archives.remove("../canary/file")


def test_row_131_a_bundle_writes_no_file_beside_its_store(place, canary):
    name = os.path.relpath(canary / "new", place.store.home / "journal")
    contents = {"bases": {}, "tags": {}, "steps": [{"key": name, "chain_id": "x"}]}
    with pytest.raises(ValueError, match="is no key of a step"):
        bundle._know(contents, place.store)


# ---------------------------------------------------------------- caches and places to mount on


@pytest.fixture
def shell(bench, unique):
    """Run a step; what it said."""

    def shell(script, **more):
        bench.events.clear()
        bench.build("a", Shell(f"{unique}\n{script}", net="none", **more))
        return "".join(event.text for event in bench.kinds(StepLog))

    return shell


@pytest.mark.parametrize("target", ["/root/.cache", "/link/below", "/dangling", "/etc"])
def test_row_131_where_a_cache_is_mounted_no_link_of_the_image_counts(bench, shell, canary, target):
    bench.build(
        "l", Shell(f"rm -rf /root; for p in /root /link /dangling; do ln -s {canary} $p; done")
    )
    assert shell(f"echo x > {target}/new; ls -d {target}", cache=(target,)) == f"{target}\n"


def test_row_131_a_link_in_a_cache_is_the_next_steps_own_business(bench, shell, canary):
    shell(f"ln -sf {canary} /kept/link; ln -sf {canary} /kept/archives", cache=("/kept",))
    assert "untouched" not in shell("cat /kept/link/file 2>&1 || true", cache=("/kept",))


def test_row_136_nothing_is_removed_where_a_step_moved_a_place_to_mount_on(
    bench, shell, canary, folder
):
    (folder / "data").mkdir()
    script = f"mv /p /q; rm -rf /p; ln -s {canary} /p; mv /p/kept /r; true"
    wish = mounts.parse("data:/p/in")
    shell(f"set +e; {script}", mounts=(wish,), cache=("/p/kept",))
    assert bench.output("ls /p/in /p/kept 2>&1; true").count("No such file") == 2


# ---------------------------------------------------------------- read, while somebody writes


class Swapper:
    """Exchanges two names as fast as it can, in a thread."""

    def __init__(self, one, other):
        self._names, self._over = (one, other), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        one, other = self._names
        third = one.with_name("third")
        while not self._over.is_set():
            for source, target in ((one, third), (other, one), (third, other)):
                source.rename(target)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def test_row_137_what_is_exchanged_while_it_is_copied_is_never_outside_nor_mixed(
    bench, folder, canary, unique
):
    """A folder, a link out of the notebook's folder, a folder again."""
    good, bad = folder / "good", folder / "bad"
    good.mkdir()
    for number in range(20):
        (good / f"{number}").write_text(unique)
    bad.symlink_to(canary)
    copied = 0
    with Swapper(good, bad):
        for number in range(20):
            with suppress(InputNotFound):
                bench.build(f"{number}", Copy(("good",), "/x"))
                copied += 1
    if copied:
        assert bench.output("cat /x/* | wc -c") == f"{20 * len(unique)}\n"
    assert bench.output("ls /x/file 2>/dev/null; true") == ""


def test_row_137_bytes_that_were_there_only_while_they_were_copied_are_in_no_layer(
    bench, folder, monkeypatch, unique
):
    """Before and after there is what the step's key says."""
    (folder / "file").write_text(f"good {unique}")
    write = inputs.Placer.write

    def as_others_write(self, source, *arguments):
        (folder / "file").write_text(f"evil {unique}")
        write(self, source, *arguments)
        (folder / "file").write_text(f"good {unique}")

    monkeypatch.setattr(inputs.Placer, "write", as_others_write)
    with pytest.raises(InputNotFound, match="file changed while it was read"):
        bench.build("a", Copy(("file",), "/x"))
    monkeypatch.undo()
    bench.build("a", Copy(("file",), "/x"))
    assert bench.output("cat /x") == f"good {unique}"


@pytest.mark.parametrize("how", ["in place", "moved", "above"])
def test_row_137_what_a_step_could_read_was_the_same_all_the_time(bench, folder, unique, how):
    """Changed while the step runs, and back again before it ends."""
    for name in ("data", "other"):
        (folder / name / "in").mkdir(parents=True)
        (folder / name / "in/file").write_text(name)
    time.sleep(0.03)  # so that nothing of it is new

    def change():
        if how == "in place":
            (folder / "data/in/file").write_text("evil")
            (folder / "data/in/file").write_text("data")
        elif how == "moved":
            (folder / "data/in").rename(folder / "data/away")
            (folder / "data/away").rename(folder / "data/in")
        else:
            raise AssertionError

    step = Shell(
        f"{unique}\ncat /in/file; sleep 0.3", net="none", mounts=(mounts.parse("data/in:/in"),)
    )
    if how == "above":
        make_ = make.Maker.make

        def swapped(self, *arguments):
            (folder / "data").rename(folder / "away")
            (folder / "other").rename(folder / "data")
            return make_(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(make.Maker, "make", swapped)
            with pytest.raises(InputNotFound, match="changed while the step could read it"):
                bench.build("a", step)
        return
    threading.Timer(0.15, change).start()
    with pytest.raises(InputNotFound, match="changed while the step could read it"):
        bench.build("a", step)
    bench.build("a", step)


# ---------------------------------------------------------------- keys, failures, what goes on


CHANGES = {
    "mode": lambda f: (f / "src/file").chmod(0o700),
    "link": lambda f: ((f / "src/link").unlink(), (f / "src/link").symlink_to("other")),
    "bytes": lambda f: (f / "src/file").write_text("b"),
    "name": lambda f: (f / "src/file").rename(f / "src/file2"),
    "kind": lambda f: ((f / "src/file").unlink(), (f / "src/file").mkdir()),
}


@pytest.fixture
def source(folder):
    (folder / "src").mkdir()
    (folder / "src/file").write_text("a")
    (folder / "src/file").chmod(0o600)
    (folder / "src/link").symlink_to("file")
    return folder


def ran(bench, *steps):
    """Whether the last of the steps had to run."""
    bench.events.clear()
    for number, step in enumerate(steps):
        bench.build(str(number), step)
    last = f"{len(steps) - 1}/0"
    return any(event.step_id == last for event in bench.kinds(StepStarted))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["copy", "mount"])
def test_row_140_other_content_makes_another_step(bench, source, unique, change, kind):
    mounted = Shell("true", net="none", mounts=(mounts.parse("src:/x"),))
    steps = Shell(f"echo '{unique}' > /u"), Copy(("src",), "/x") if kind == "copy" else mounted
    assert ran(bench, *steps)
    CHANGES[change](source)
    assert ran(bench, *steps)


def test_row_140_times_make_none(bench, source, unique):
    steps = (Shell(f"echo '{unique}' > /u"), Copy(("src",), "/x"))
    assert ran(bench, *steps)
    for path in (source / "src", *(source / "src").iterdir()):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert not ran(bench, *steps)


PLAIN = ImageConfig("x", "linux")
OTHER = {
    "parent": {"parent": Digest.of(b"other")},
    "script": {"step": Shell("other")},
    "network": {"step": Shell("x", net="none")},
    "environment": {"config": replace(PLAIN, env=("A=1",))},
    "working directory": {"config": replace(PLAIN, workdir="/w")},
    "user": {"config": replace(PLAIN, user="1:1")},
    "epoch": {"epoch": 1},
}


@pytest.mark.parametrize("what", OTHER)
def test_row_140_whatever_decides_what_a_step_does_is_in_its_key(what):
    usual = {
        "step": Shell("x"),
        "parent": Digest.of(b""),
        "config": PLAIN,
        "inputs": {},
        "epoch": 0,
    }
    assert key_of(key_parts(**usual)) != key_of(key_parts(**usual | OTHER[what]))


def test_row_140_another_architecture_is_another_step(monkeypatch):
    def key():
        return key_of(key_parts(Shell("x"), Digest.of(b""), PLAIN, {}, 0))

    ours, here = key(), os.uname()
    other = os.uname_result([*here[:4], "riscv64"])
    monkeypatch.setattr(os, "uname", lambda: other)
    assert key() != ours


def test_row_143_the_same_failure_has_the_same_words_and_no_place_of_the_host(bench, shell):
    said = []
    for _ in range(2):
        with pytest.raises(StepFailed) as raised:
            shell("echo out; echo err >&2; cat /missing; exit 7")
        said.append((str(raised.value), raised.value.tail))
    assert said[0] == said[1]
    assert not re.search(r"/tmp|/home|ck-tests", str(said))


def test_row_142_a_daemon_that_clings_on_writes_into_no_layer(bench, shell):
    """It has a session of its own, hears no signal, and forks for ever."""
    shell(
        "(trap '' TERM HUP INT; exec setsid sh -c '"
        "while :; do (echo x >> /log; mv /log /log2; mv /log2 /log) 2>/dev/null; done') &\n"
        "until [ -s /log ]; do sleep 0.01; done"
    )
    damaged = {found.damage for found in check(bench.workbench.store, full=True)}
    assert damaged <= {"unreferenced"}
