"""Real packages from this host's own mirrors: apt, pip, npm."""

import os

import pytest

from container_kernel.build import lock as locks
from container_kernel.build.events import StepLog
from container_kernel.build.ledger import Ledger
from container_kernel.build.lock import Lock
from container_kernel.build.packages import Installation
from container_kernel.build.step import Base, Packages
from container_kernel.errors import LockDrift, StepFailed
from container_kernel.oci.digest import Digest
from container_kernel.record import replace
from container_kernel.runtime.network import NONE

from .conftest import lock_of

pytestmark = [pytest.mark.privileged, pytest.mark.slow]


def frozen_files(bench):
    """Everything in the layers on top of the base, as paths in the image."""
    store = bench.workbench.store
    chain = store.snapshots.chain(bench.image().chain_id)[1:]
    return {
        "/" + str(path.relative_to(snapshot.path))
        for snapshot in chain
        for path in snapshot.path.rglob("*")
        if not path.is_dir()
    }


def test_apt_installs_and_cleans_up(debian):
    assert debian.output("python3 -c 'print(6 * 7)'") == "42\n"
    files = frozen_files(debian)
    assert "/usr/bin/python3.11" in files
    for place in ("/var/lib/apt/lists/", "/var/cache/apt/", "/run/", "/var/log/apt/"):
        assert not [path for path in files if path.startswith(place)]
    assert "/var/log/dpkg.log" not in files


def test_pip_needs_no_pip_and_leaves_no_cache(debian):
    debian.build("pip", Packages("pip", ("idna", "six==1.16.0")))
    said = debian.output(
        "cd /; python3 -c 'import idna, six; print(six.__version__, idna.__file__)'; "
        "command -v pip uv; ls -A /root ~ /tmp"
    )
    assert said.startswith("1.16.0 /usr/local/lib/python3.11/dist-packages/idna/")
    assert "uv" not in said.split()
    assert not [path for path in frozen_files(debian) if "/uv" in path or "/.cache" in path]


def test_bytecode_of_packages_is_valid_where_it_lies(debian):
    debian.build("pip", Packages("pip", ("idna",)))
    said = debian.output("cd /; python3 -v -c 'import idna.core, json' 2>&1 | grep __pycache__")
    assert "idna/__pycache__/core.cpython-311.pyc matches" in said
    assert "json/__pycache__/__init__.cpython-311.pyc matches" in said
    assert "wrote" not in said
    flags = "import sys; print([open(p, 'rb').read(8)[4] for p in sys.argv[1:]])"
    caches = (
        "/usr/l*/*/python3*/*/idna/__pycache__/core.*.pyc /usr/lib/python3.11/json/__pyc*/*.pyc"
    )
    assert set(debian.output(f'python3 -c "{flags}" {caches}')) <= set("[0, ]\n")  # by time


def test_requirements_come_from_a_file(debian, folder):
    (folder / "requirements.txt").write_text("six==1.16.0  # pinned\n")
    debian.build("pip", Packages("pip", (), ("requirements.txt",)))
    first = debian.image().digest
    (folder / "requirements.txt").write_text("six==1.17.0\n")
    debian.build("pip", Packages("pip", (), ("requirements.txt",)))
    assert debian.image().digest != first
    assert debian.output("cd /; python3 -c 'import six; print(six.__version__)'") == "1.17.0\n"


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (Packages("apt", ("no-such-package-anywhere",)), "Unable to locate package"),
        (Packages("pip", ("no-such-package-anywhere-zzz",)), "not found"),
        (Packages("npm", ("x",)), "no npm"),
    ],
)
def test_a_package_that_does_not_exist(debian, step, says):
    before = debian.image().digest
    with pytest.raises(StepFailed, match=says):
        debian.build("bad", step)
    assert debian.image().digest == before


def test_pip_without_python_says_what_to_do(make_bench):
    bench = make_bench()
    bench.build("base", Base("busybox"))
    with pytest.raises(StepFailed, match="%apt python3"):
        bench.build("pip", Packages("pip", ("six",)))


# ---------------------------------------------------------------- locked


def test_what_is_locked_is_installed_again_to_the_bit_and_without_network(locked, monkeypatch):
    apt, pip = Packages("apt", ("python3", "hello")), Packages("pip", ("idna", "six==1.16.0"))
    first = locked(apt, pip, use_cache=True, is_locked=False)
    made = lock_of(first, locked.notebook)
    taken = {(one["kind"], one["name"]): one for step in made.steps for one in step.inputs}
    assert taken["python", "six"]["version"] == "1.16.0"
    assert taken["python", "six"]["file"] == "six-1.16.0-py2.py3-none-any.whl"
    assert taken["deb", "hello"]["file"].startswith("hello_")
    archives = first.workbench.store.cache_folder("apt") / "archives"
    (archives / taken["deb", "hello"]["file"]).unlink()  # it is kept by its digest too
    command = Installation.command
    monkeypatch.setattr(
        Installation, "command", lambda *given: replace(command(*given), network=NONE)
    )
    again = locked(apt, pip)
    assert again.image().digest == first.image().digest


def test_a_package_that_is_nowhere_any_more_is_named(locked):
    made = lock_of(
        locked(Packages("apt", ("hello",)), use_cache=True, is_locked=False), locked.notebook
    )
    (hello,) = made.steps[0].inputs
    path = locks.path_of(locked.notebook)
    gone = hello["file"].replace(hello["version"], "0.1-1")
    path.write_text(
        path.read_text()
        .replace(hello["file"], gone)
        .replace(hello["digest"], "sha256:" + "0" * 64)
        .replace(f'"{hello["version"]}"', '"0.1-1"')
    )
    with pytest.raises(
        LockDrift, match=r"neither the store nor the package mirror has hello:amd64=0\.1-1"
    ):
        locked(Packages("apt", ("hello",)))


def test_a_package_of_another_digest_is_refused(locked):
    made = lock_of(
        locked(Packages("apt", ("hello",)), use_cache=True, is_locked=False), locked.notebook
    )
    path = locks.path_of(locked.notebook)
    digest = made.steps[0].inputs[0]["digest"]
    path.write_text(path.read_text().replace(digest, "sha256:" + "0" * 64))
    with pytest.raises(LockDrift, match="other bytes than locked"):
        locked(Packages("apt", ("hello",)))


def test_a_python_package_of_another_digest_is_refused(locked):
    steps = Packages("apt", ("python3",)), Packages("pip", ("six==1.16.0",))
    made = lock_of(locked(*steps, use_cache=True, is_locked=False), locked.notebook)
    path = locks.path_of(locked.notebook)
    digest = made.steps[1].inputs[0]["digest"]
    path.write_text(path.read_text().replace(digest, "sha256:" + "0" * 64))
    with pytest.raises(LockDrift, match="other bytes than locked"):
        locked(*steps, use_cache=False)


def test_a_locked_base_is_made_again_to_the_bit_and_without_its_mirror(locked, settings, tmp_path):
    first = locked(use_cache=True, is_locked=False)
    made = lock_of(first, locked.notebook)
    packages = {one["name"]: one for one in made.base_inputs}
    assert packages["apt"]["priority"] == "required"  # by the archive; the package says important
    assert {one["kind"] for one in made.base_inputs} == {"deb"}
    kept, there = first.workbench.store.home / "downloads/inputs", tmp_path / "elsewhere"
    (there / "downloads/inputs").mkdir(parents=True)
    for one in made.base_inputs:
        digest = one["digest"].removeprefix("sha256:")
        os.link(kept / digest, there / "downloads/inputs" / digest)
    nowhere = settings.environ | {"http_proxy": "http://127.0.0.1:9"}
    again = locked(home=there, environ=nowhere)
    assert again.image().digest == first.image().digest
    log = "".join(event.text for event in again.events if isinstance(event, StepLog))
    assert "from the packages that are locked" in log


def test_which_packages_of_a_base_are_others_is_told(locked):
    first = locked(use_cache=True, is_locked=False)
    made = lock_of(first, locked.notebook)
    apt = next(one for one in made.base_inputs if one["name"] == "apt")
    other = replace(made, base_digest=Digest.of(b""), base_inputs=({**apt, "version": "0.1"},))
    ledger = Ledger(first.workbench.ledger.journal, lock=Lock({"main": other}, "", ""))
    stage = first.workbench._stages.find("main")
    with pytest.raises(LockDrift, match=rf"other packages: .*\bapt 0\.1 → {apt['version']}"):
        ledger.check_base(stage, first.image().chain_id)
