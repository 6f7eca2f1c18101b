"""What an administrator allows at most."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from container_kernel import ceilings, config, syscalls
from container_kernel.ceilings import Ceilings
from container_kernel.config import Config
from container_kernel.errors import CeilingExceeded, UsageError
from container_kernel.runtime.relaxed import Relaxed
from tests.kernel.test_real import RealKernel

GIB = 1024**3
SOME = Ceilings(
    most={"memory_bytes": GIB, "pids": 100, "cpus": 2, "scratch_bytes": GIB}, file=config.CEILINGS
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the file, as root would have."""

    def write(text):
        file = tmp_path / "ceilings.toml"
        file.write_text(text)
        file.chmod(0o644)
        # The file of a test is its user's. What looks like root's is tried on its own below.
        monkeypatch.setattr(ceilings, "_check_owner", lambda file, uid, mode: None)
        return file

    return write


def test_where_there_is_no_file_nothing_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CEILINGS", tmp_path / "none" / "ceilings.toml")
    assert config.load().ceilings is None
    Config(home=Path("/x")).check_network("host")


def test_a_file_that_cannot_be_read_is_not_as_if_it_were_not_there(tmp_path, monkeypatch):
    link = tmp_path / "ceilings.toml"
    link.symlink_to("nowhere")
    monkeypatch.setattr(config, "CEILINGS", link)
    with pytest.raises(UsageError, match="cannot be read"):
        config.load()


def test_the_file_says_what_is_allowed_in_the_units_of_the_flags(write):
    text = "memory = '2g'\npids = 64\ncpus = 1.5\ntimeout = 60\nnetworks = ['none']\n"
    file = write(text + "relaxed = ['as-root', 'add-cap net_raw']")
    found = ceilings.read(file)
    assert found.most == {"memory_bytes": 2 * GIB, "pids": 64, "cpus": 1.5, "timeout_s": 60}
    assert found.networks == ("none",)
    assert found.relaxed == ("as-root", "add-cap NET_RAW")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory = ", "ceilings.toml: "),
        ("memory = 'lots'", "memory takes a number or a size such as '8g', found 'lots'"),
        ("memory = -1", "found -1"),
        ("pids = true", "found True"),
        ("cpu = 3", "no ceiling is called 'cpu'"),
        ("networks = 'none'", "networks takes a list"),
        ("isolation = 'best'", "'best' is no level"),
        ("relaxed = 'no-seccomp'", "relaxed takes a list"),
        ("relaxed = ['privileged']", "is called 'privileged'"),
        ("relaxed = ['add-cap EVERYTHING']", "is called 'add-cap EVERYTHING'"),
    ],
)
def test_a_file_that_is_wrong_is_named(write, text, said):
    with pytest.raises(UsageError, match=r"ceilings.toml|no level") as caught:
        ceilings.read(write(text))
    assert said in str(caught.value)


@pytest.mark.privileged
def test_a_file_that_a_user_could_have_written_is_refused(tmp_path, entered):
    file = tmp_path / "ceilings.toml"
    file.write_text("pids = 1")
    file.chmod(0o666)
    with pytest.raises(UsageError, match="is not root's alone"):
        ceilings.read(file)
    file.chmod(0o644)
    if entered.is_rootless:  # there who looks like root is the user
        with pytest.raises(UsageError, match="is not root's alone"):
            ceilings.read(file)
    else:
        assert ceilings.read(file).most == {"pids": 1}


def test_what_the_hosts_root_wrote_is_trusted_by_a_user(entered):
    about = Path("/etc/passwd").stat()
    if entered is None:
        pytest.skip("no namespaces here, so nobody is mapped")
    ceilings._check_owner(Path("/etc/passwd"), about.st_uid, about.st_mode)


def test_more_than_allowed_is_refused_and_the_file_named():
    with pytest.raises(CeilingExceeded) as caught:
        SOME.check({"memory_bytes": 2 * GIB})
    said = str(caught.value)
    assert "memory may be 1024m at most on this host" in said
    assert "/etc/container-kernel/ceilings.toml" in said
    assert "found 2048m" in said


def test_defaults_and_no_limit_become_the_ceiling():
    limits = Config(home=Path("/x"), ceilings=SOME).run_limits({})
    assert (limits.memory_bytes, limits.pids, limits.cpus) == (GIB, 100, 2)
    assert limits.scratch_bytes == GIB
    build = Config(home=Path("/x"), ceilings=SOME).build_limits
    assert (build.memory_bytes, build.pids, build.scratch_bytes) == (GIB, 100, None)


def test_less_than_allowed_is_what_it_is():
    limits = Config(home=Path("/x"), ceilings=SOME).run_limits({"pids": 3, "memory_bytes": 7 << 20})
    assert (limits.pids, limits.memory_bytes) == (3, 7 << 20)


def test_networks_that_are_not_allowed_are_refused():
    only = Ceilings(most={}, networks=("pasta",), file=config.CEILINGS)
    only.check_network("none")
    only.check_network("pasta")
    with pytest.raises(CeilingExceeded, match="net may be none or pasta at most"):
        only.check_network("host")


def relaxed(*allowed):
    return Ceilings(most={}, relaxed=allowed, file=config.CEILINGS)


def test_what_weakens_a_container_is_refused_where_it_is_not_allowed():
    some = relaxed("as-root", "add-cap NET_RAW")
    some.check_relaxed(["as-root", "add-cap NET_RAW"])
    for word in ("no-seccomp", "add-cap SYS_ADMIN"):
        with pytest.raises(CeilingExceeded, match="as-root or add-cap NET_RAW at most"):
            some.check_relaxed([word])
    relaxed("add-cap").check_relaxed(["add-cap SYS_ADMIN"])
    with pytest.raises(CeilingExceeded, match="may be nothing at most"):
        relaxed().check_relaxed(["as-root"])
    SOME.check_relaxed(["no-seccomp"])


def test_a_setting_that_weakens_is_refused_as_a_flag_is():
    weak = Config(home=Path("/x"), no_seccomp=True, ceilings=relaxed("as-root"))
    with pytest.raises(CeilingExceeded, match="found no-seccomp"):
        weak.relaxed()
    held = Config(home=Path("/x"), ceilings=relaxed("as-root"))
    assert held.relaxed(Relaxed(as_root=True)).words == ("as-root",)
    with pytest.raises(CeilingExceeded, match="found add-cap NET_RAW"):
        held.relaxed(Relaxed(capabilities=("CAP_NET_RAW",)))


def test_settings_above_a_ceiling_are_refused(tmp_path, monkeypatch):
    (tmp_path / "container_kernel_config.py").write_text("c.ContainerKernel.pids = 1000")
    monkeypatch.setattr(config, "_ceilings", lambda: SOME)
    environ = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path)}
    with pytest.raises(CeilingExceeded, match="pids may be 100 at most"):
        config.load(environ)


@pytest.mark.privileged
def test_a_user_cannot_go_above_what_root_wrote(tmp_path, entered):
    """On this host with another /etc, which only the kernel of this test sees."""
    if entered.is_rootless:
        pytest.skip("only root can write what root must have written")
    etc, work = tmp_path / "etc", tmp_path / "work"
    for folder in (etc / "container-kernel", work):
        folder.mkdir(parents=True)
    said = "memory = '1g'\nnetworks = ['none']\nrelaxed = ['add-cap net_raw']\n"
    (etc / "container-kernel/ceilings.toml").write_text(said)
    options = f"lowerdir=/etc,upperdir={etc},workdir={work}"
    syscalls.mount("overlay", "/etc", "overlay", data=options)
    try:
        kernel = RealKernel(tmp_path, tmp_path / "home", "crun")
    finally:
        syscalls.umount("/etc", syscalls.MNT_DETACH)
    try:
        assert kernel.run("%base busybox")[0]["status"] == "ok"
        assert "memory may be 1024m at most" in kernel.run("%limits --memory 2g")[0]["evalue"]
        assert "memory may be 1024m at most" in kernel.run("%%run --memory 2g true")[0]["evalue"]
        assert "net may be none at most" in kernel.run("%%run --net host true")[0]["evalue"]
        assert "net may be none at most" in kernel.run("%%build\ntrue")[0]["evalue"]
        assert kernel.run("%%build --net none\ntrue")[0]["status"] == "ok"
        assert "1 GiB" in kernel.text("%limits")
        assert kernel.run("%%run --memory 512m true")[0]["status"] == "ok"
        only = "what weakens a container may be add-cap NET_RAW at most"
        for flag in ("--as-root", "--no-seccomp", "--add-cap CHOWN"):
            assert only in kernel.run(f"%%run {flag} true")[0]["evalue"]
        assert kernel.run("%%run --add-cap NET_RAW true")[0]["status"] == "ok"
    finally:
        kernel.close()
