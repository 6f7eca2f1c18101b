"""Threats, group G: what can be seen and done from inside, in every kind of container.

A run cell's (``run``), one that asked to be root (``as-root``), a process beside another (``exec``)
and a build step (``build``), each started the way a cell starts it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import stat
from importlib import resources
from pathlib import Path

import pytest

from container_kernel.runtime import profile
from tests.runtime.facts import read

pytestmark = pytest.mark.privileged
BUILD, ROOT = profile.BUILD_CAPABILITIES, profile.AS_ROOT_CAPABILITIES
HELD = {"run": (), "exec": (), "as-root": ROOT, "build": BUILD}
NUMBERS = {
    "CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5,
    "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18, "CAP_SETFCAP": 31,
}  # fmt: skip
_NAMES = ("null", "zero", "full", "random", "urandom", "tty", "pts/ptmx")
DEVICES = {f"/dev/{name}" for name in _NAMES}
DECLARED = {"/work", "/run/container-kernel", "/run/container-kernel-init", "/run/site"}
EPERM, EAFNOSUPPORT, ENOSYS = "errno 1", "errno 97", "errno 38"
UNFILTERED = {335, 336}  # uretprobe, uprobe: the host kernel answers these before any filter


def test_row_103_capabilities_are_those_of_the_table(found):
    held = f"{sum(1 << NUMBERS[name] for name in HELD[found.kind]):016x}"
    none = f"{0:016x}"
    masks = [found.status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
    assert masks == [none, held, held, held, none]


def test_row_104_no_new_privileges_and_a_filter(found):
    assert (found.status["NoNewPrivs"], found.status["Seccomp"]) == ("1", "2")


def test_row_104_a_setuid_program_gains_nothing(found):
    assert found.pairs("setuid")["euid"] == found.pairs("setuid")["uid"] == found["who"][0]


def test_row_105_every_system_call_answers_as_the_profile_says(found, entered):
    allowed, refused = _rules(pretends=found.kind == "build" and entered.idmap.squash)
    wrong = {}
    for text, answer in found.pairs("calls").items():
        number = int(text)
        expected = refused.get(number, ENOSYS)
        if number not in allowed and number not in UNFILTERED and answer != expected:
            wrong[number] = answer
    assert wrong == {}
    assert len(found["calls"]) == 500  # 0 to 500 without sync(2)


def test_row_105_what_the_profile_allows_is_not_refused(prober):
    """The same calls without the filter: where a call is allowed, nothing must differ."""
    answers = []
    for no_seccomp in (False, True):
        with prober.live(no_seccomp=no_seccomp) as live:
            answers.append(_pairs(read(live.start(["/probe", "calls", "--bare"]))))
    filtered, bare = answers
    allowed, _ = _rules(pretends=False)
    differ = {n: (bare[n], filtered[n]) for n in filtered if bare[n] != filtered[n]}
    assert {number: pair for number, pair in differ.items() if int(number) in allowed} == {}
    assert len(differ) > 30


def test_row_105_arguments_of_socket_are_looked_at_whole(found):
    """The host kernel takes 32 bits of the family: more of them must not hide one (and did)."""
    sockets = found.pairs("attempts")
    families = {number for number in range(64) if sockets[f"socket-{number}"] == ENOSYS}
    assert families == set()
    hidden = [f"{high}socket-{family}" for high in ("", "high-") for family in (38, 40)]
    assert {sockets[name] for name in hidden} == {EAFNOSUPPORT}
    assert sockets["socket-1"] == sockets["socket-2"] == "done"


def test_row_105_nothing_is_pushed_into_a_terminal(found):
    attempts = found.pairs("attempts")
    names = ("ioctl-TIOCSTI", "ioctl-high-TIOCSTI", "ioctl-TIOCLINUX")
    assert {attempts[name] for name in names} == {EPERM}
    assert attempts["ioctl-TIOCGWINSZ"] == "done"


def test_row_105_personalities_that_weaken_a_process_are_refused(found):
    attempts = found.pairs("attempts")
    assert attempts["personality-linux"] == "done"
    assert attempts["personality-executable-data"] == ENOSYS
    assert attempts["personality-fixed-addresses"] == ENOSYS


def test_row_105_the_calls_of_another_architecture_are_no_way_round(found):
    assert found.pairs("attempts")["x32"] == "gone"  # it was killed


@pytest.mark.parametrize(
    "name",
    [
        *(f"unshare-{kind}" for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")),
        *(f"clone-{kind}" for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")),
        *("unshare-time", "clone3", "setns", "mount", "mount-bind", "mount-cgroup", "pivot_root"),
    ],
)
def test_row_106_namespaces_and_mounts_are_refused(found, name):
    assert found.pairs("attempts")[name] in (EPERM, ENOSYS)


@pytest.mark.parametrize(
    "name",
    [
        *("keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd"),
        *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    ],
)
def test_row_106_interfaces_of_the_host_kernel_are_refused(found, name):
    assert found.pairs("calls")[str(_number(name))] == EPERM


def test_row_134_ciphers_of_the_host_kernel_are_out_of_reach(found):
    """AF_ALG (CVE-2026-31431), also where the upper half of the number is not zero."""
    attempts = found.pairs("attempts")
    assert {attempts["socket-38"], attempts["high-socket-38"]} == {EAFNOSUPPORT}


def test_row_107_masked_paths_are_empty_however_they_are_reached(found):
    content = found.pairs("content")
    assert set(content.values()) == {"0"}
    here = {path for path in profile.masked_paths() if os.path.exists(path)}
    assert here <= {*content, "/proc/kcore", "/sys/devices/virtual/powercap"}
    assert f"/proc/self/root{min(here)}" in content


def test_row_107_read_only_paths_cannot_be_written_however_they_are_reached(found):
    assert found["written"] == []
    mounted = {mount.target: mount.options for mount in found.mounts}
    readonly = {path for path in profile.READONLY_PATHS if path in mounted}
    assert readonly >= {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"}
    assert all("ro" in mounted[path] for path in readonly)


@pytest.fixture
def has_userns(entered):
    """Whether containers have a user namespace of their own."""
    return not entered.idmap.is_identity


def test_row_108_namespaces_are_its_own(found, has_userns):
    for kind, name in found.pairs("namespaces").items():
        is_ours = name == os.readlink(f"/proc/self/ns/{kind}")
        assert is_ours == (kind == "user" and not has_userns), kind


def test_row_109_nothing_of_the_host_is_mounted_but_what_is_declared(found):
    kinds = {"overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue"}
    binds = {mount.target for mount in found.mounts if mount.kind not in kinds}
    masks = {mount.target for mount in found.mounts if mount.root == "/null"}
    # An ordinary user can make no device: there the harmless ones are the host's own.
    devices = {m.target for m in found.mounts if m.target == f"/dev{m.root}"} & DEVICES
    assert masks - devices <= set(profile.masked_paths())
    assert binds - masks - devices <= DECLARED


def test_row_109_mounts_are_private_and_bring_no_devices_or_set_user_ids(found):
    for mount in found.mounts:
        assert not mount.propagation, mount.target
        if mount.target in DECLARED:
            assert {"nosuid", "nodev"} <= mount.options, mount.target
    (root,) = (mount for mount in found.mounts if mount.target == "/")
    assert "nodev" in root.options


def test_row_110_devices_are_the_harmless_ones(found):
    assert set(found["devices"]) == DEVICES
    assert set(found["folders"]) == {"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}
    assert found.pairs("attempts")["mknod-block"].startswith("errno")


def test_row_110_a_device_in_an_image_cannot_be_opened(prober, entered):
    """For two reasons: the mount of `/` takes none, and the cgroup's list of devices."""
    if entered.is_rootless:
        pytest.skip("an ordinary user can make no device; the mount in their namespace takes none")
    with prober.live() as live:
        device = live.rootfs.path / "kmsg"
        with live.rootfs.as_root:
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 11))
            device.chmod(0o666)
        said = read(live.start(["sh", "-c", "ls -l /kmsg; head -c 1 /kmsg 2>&1"]))
    assert said.startswith("crw-rw-rw-")
    assert "denied" in said or "not permitted" in said


def test_row_111_no_cgroup_can_be_written(found):
    assert [mount.target for mount in found.mounts if mount.kind.startswith("cgroup")] == []
    assert found["cgroup"] == []


def test_row_112_no_descriptor_is_inherited(found):
    """Four dozen folders are open here, and inheritable."""
    assert set(found.pairs("fds")) == {"0", "1", "2"}


def test_row_113_there_is_no_way_out_by_network(found):
    assert found["links"] == ["lo"]
    header, *routes = found["routes"]
    assert header.startswith("Iface")
    assert all(line.split()[-1] == "lo" for line in routes)
    assert len(found["sockets"]) == 1  # the header: nobody's abstract socket is here


def test_row_115_nothing_of_the_hosts_environment_is_seen(found):
    seen = {line.partition("=")[0] for line in found["environment"]}
    site = {name for name in seen if "/run/site/" in "\n".join(_values(found, name))}
    known = {"USER", "SHLVL", "HOME", "LOGNAME", "PATH", "LC_ALL", "PWD", "SOURCE_DATE_EPOCH"}
    assert seen - site - {name for name in seen if "proxy" in name.lower()} <= known
    assert found["host"] == ["build" if found.kind == "build" else "container"]


def test_row_116_other_processes_are_not_seen(found):
    own = {"catatonit", "container-kerne", "sh", "cat", "sleep"}
    assert set(found["processes"]) <= own


def test_dumps_and_open_files_are_limited(prober):
    with prober.live() as live:
        said = read(live.start(["sh", "-c", "ulimit -c; ulimit -Hn"])).split()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert said == ["0", str(min(hard, 1024 * 1024))]


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition(" ") for line in text.splitlines())}


def _values(found, name: str) -> list[str]:
    return [line for line in found["environment"] if line.startswith(f"{name}=")]


def _number(name: str) -> int:
    return int(_library().seccomp_syscall_resolve_name(name.encode()))


def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libseccomp.so.2")


def _rules(*, pretends: bool) -> tuple[set[int], dict[int, str]]:
    """The numbers that ``seccomp.json`` allows at all, and what those answer that it refuses."""
    text = resources.files("container_kernel.runtime").joinpath("seccomp.json").read_text()
    allowed: set[int] = set()
    refused: dict[int, str] = {}
    for rule in json.loads(text)["syscalls"]:
        numbers = {_number(name) for name in rule["names"]}
        if rule["action"] == "SCMP_ACT_ALLOW":
            allowed |= numbers
        elif "args" not in rule:
            refused |= dict.fromkeys(numbers, f"errno {rule['errnoRet']}")
    if pretends:
        pretended = {_number(name) for name in profile.PRETENDED}
        allowed -= pretended
        refused |= dict.fromkeys(pretended, "done")
    return allowed, refused


def test_row_43_a_hog_of_inotify_leaves_its_user_half(entered):
    """Whatever runs in our user namespace, or in one below it, counts as one."""
    if not entered.is_rootless:
        pytest.skip("root's containers have no user namespace, whose limits could be lowered")
    host = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if host > 1000:
        pytest.skip("so many instances are more than the files one may open")
    taken: list[int] = []
    while len(taken) <= host and (fd := ctypes.CDLL(None).inotify_init1(0)) >= 0:
        taken.append(fd)
    for fd in taken:
        os.close(fd)
    assert 0 < len(taken) <= host // 2
