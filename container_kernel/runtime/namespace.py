"""Namespace: the private place where everything that mounts happens.

``enter`` turns the calling process into the supervisor of a copy of itself that lives in mount and
process namespaces of its own (and in a user namespace when the user is not root), as ``podman
unshare`` does for mounts. Four processes, of which three stay:

- the *supervisor* is the process that was started. It stays outside, forwards signals, follows
  its parent, hands on the exit status and sweeps the run folder.
- a *stepping stone* makes the namespaces and ends at once: the supervisor must write the id map
  from outside (newuidmap(1)) and only a child of the stepping stone is in the new pid namespace.
- the *reaper* is pid 1 in there. The host kernel kills it with the supervisor, and everything
  else in the namespace, containers included, with it: nothing outlives its owner.
- the *worker* is where ``enter`` returns.

So no mount ever appears on the host, and SIGKILL to any of the three leaves nothing running.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import select
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .. import syscalls
from ..errors import HostError
from ..oci.idmap import IdMap

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_SANE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where this process is. ``level`` is ``root``, ``rootless`` or ``single-uid``.

    ``run_dir`` is a folder of this process tree alone (0700), gone when it ends. ``lacks`` says
    in words what this host did not give.
    """

    level: str
    idmap: IdMap
    run_dir: Path
    lacks: tuple[str, ...] = ()

    @property
    def is_rootless(self) -> bool:
        """True when an ordinary user started it."""
        return self.level != "root"


@dataclass(frozen=True, slots=True)
class _Range:
    start: int
    count: int


def enter() -> Namespace:
    """Go on in namespaces of our own; call once, early, with a single thread.

    Only the worker returns. The process that called stays behind as supervisor and ends with
    the worker's exit status.

    Raises:
        HostError: this host does not allow it; the caller goes on outside, unchanged.
    """
    run_dir, lock = _make_run_dir()
    lacks: list[str] = []
    subordinate = None if os.getuid() == 0 else _subordinate_ids(lacks)
    try:
        return _fork_inside(run_dir, lock, subordinate, tuple(lacks))
    except HostError:
        shutil.rmtree(run_dir, ignore_errors=True)
        os.close(lock)
        raise


def _fork_inside(
    run_dir: Path, lock: int, subordinate: tuple[_Range, _Range] | None, lacks: tuple[str, ...]
) -> Namespace:
    uid, gid = os.getuid(), os.getgid()
    report_r, report_w = os.pipe()
    go_r, go_w = os.pipe()
    alive_r, alive_w = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    stone = os.fork()
    if stone == 0:
        for fd in (report_r, go_w, alive_w):
            os.close(fd)
        namespace = _cross(uid, gid, subordinate, run_dir, lacks, (report_w, go_r, alive_r))
        os.close(alive_r)
        return namespace
    for fd in (report_w, go_r, alive_r):
        os.close(fd)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    try:
        reaper = _guide(stone, subordinate, report_r, go_w)
    finally:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
        for fd in (report_r, go_w):
            os.close(fd)
    return _supervise(reaper, run_dir, lock)


# ---------------------------------------------------------------- the supervisor


def _guide(stone: int, subordinate: tuple[_Range, _Range] | None, report: int, go: int) -> int:
    """Map ids for the stepping stone and return the reaper's pid."""
    reaper = 0
    with os.fdopen(os.dup(report), "r", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "unshared":
                problem = _write_id_maps(stone, subordinate) if subordinate else ""
                os.write(go, b"x" if problem else b"m")
                if problem:
                    os.waitpid(stone, 0)
                    raise HostError(problem, hint=_SUBUID_REMEDY)
            elif word == "reaper":
                reaper = int(rest)
                os.waitpid(stone, 0)  # from here on the reaper is our own child
                os.write(go, b"p")
            elif word == "ready":
                return reaper
            elif word == "failed":
                os.waitpid(reaper or stone, 0)
                raise HostError(rest, hint=_userns_remedy())
    raise HostError("the process that makes namespaces ended without a word")


def _write_id_maps(pid: int, subordinate: tuple[_Range, _Range]) -> str:
    """Map id 0 to the user and 1… to the subordinate ids; say what went wrong, if anything."""
    for tool, own, ids in zip(
        ("newuidmap", "newgidmap"), (os.getuid(), os.getgid()), subordinate, strict=True
    ):
        path = shutil.which(tool, path=_SANE_PATH)
        if path is None:
            return f"{tool} is not installed"
        words = [tool, str(pid), "0", str(own), "1", "1", str(ids.start), str(ids.count)]
        child = os.posix_spawn(path, words, {"PATH": _SANE_PATH})
        if os.waitpid(child, 0)[1]:
            return f"{tool} refused to map ids {ids.start} to {ids.start + ids.count - 1}"
    return ""


def _supervise(reaper: int, run_dir: Path, lock: int) -> NoReturn:
    """Wait for the reaper, pass signals on, follow our parent; end as the worker ended."""
    parent = os.getppid() if "JPY_PARENT_PID" in os.environ else None
    for ignored in (signal.SIGINT, signal.SIGQUIT):  # a terminal sends these to the worker too
        signal.signal(ignored, signal.SIG_IGN)
    watched = {signal.SIGCHLD, *_FORWARDED}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    while True:
        pid, status = os.waitpid(reaper, os.WNOHANG)
        if pid:
            break
        if parent is not None and os.getppid() != parent:
            os.kill(reaper, signal.SIGKILL)
        info = signal.sigtimedwait(watched, 1.0)
        if info is not None and info.si_signo in _FORWARDED:
            os.kill(reaper, info.si_signo)
    shutil.rmtree(run_dir, ignore_errors=True)
    _sweep_cgroups(run_dir.name)
    os.close(lock)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


# ---------------------------------------------------------------- stepping stone, reaper, worker


def _cross(
    uid: int,
    gid: int,
    subordinate: tuple[_Range, _Range] | None,
    run_dir: Path,
    lacks: tuple[str, ...],
    pipes: tuple[int, int, int],
) -> Namespace:
    report, go, alive = pipes
    try:
        _unshare(uid, gid, subordinate is not None, report, go)
        reaper = os.fork()
        if reaper:
            os.write(report, b"reaper %d\n" % reaper)
            os._exit(0)
        # The death signal follows the parent: wait until that is the supervisor.
        os.read(go, 1)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)
        _mount_own_views(uid)
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
        worker = os.fork()
    except OSError as error:
        what = "user namespaces are not allowed here" if uid else "namespaces are not allowed here"
        os.write(report, f"failed {what}: {error.strerror} ({error.filename})\n".encode())
        os._exit(1)
    if worker:
        os.write(report, b"ready\n")
        os.close(report)
        _reap(worker)
    os.close(report)
    os.close(go)
    # Containers are started detached; as subreaper their exit status comes to us.
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    if uid == 0:
        return Namespace("root", IdMap.identity(), run_dir, lacks)
    if subordinate is None:
        return Namespace("single-uid", IdMap.single(), run_dir, lacks)
    count = min(subordinate[0].count, subordinate[1].count)
    return Namespace("rootless", IdMap.keep_user(count), run_dir, lacks)


def _unshare(uid: int, gid: int, mapped_by_supervisor: bool, report: int, go: int) -> None:
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID
    if uid:
        flags |= syscalls.CLONE_NEWUSER
        if not _is_unified():
            flags |= syscalls.CLONE_NEWCGROUP
    syscalls.unshare(flags)
    os.write(report, b"unshared\n")
    if os.read(go, 1) != b"m":
        os._exit(1)
    if uid:
        if mapped_by_supervisor:
            os.setgroups([])
        else:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)


def _mount_own_views(uid: int) -> None:
    """Give the new namespaces a /proc of their own, and cgroups as the OCI runtimes want them.

    crun refuses a hybrid hierarchy. Root covers the v2 part, so that v1 with its limits remains;
    a user, who cannot use v1 anyway, gets a fresh v2 view of a cgroup namespace.
    """
    syscalls.mount(
        "proc",
        "/proc",
        "proc",
        syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC,
    )
    if _is_unified():
        return
    if uid:
        syscalls.mount("cgroup2", str(_CGROUP_ROOT), "cgroup2")
    elif os.path.ismount(_CGROUP_ROOT / "unified"):
        syscalls.mount("tmpfs", str(_CGROUP_ROOT / "unified"), "tmpfs")


def _reap(worker: int) -> NoReturn:
    """Be pid 1: bury whoever dies, and end when the worker does."""
    for ignored in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: os.kill(worker, received))
    while True:
        try:
            pid, status = os.wait()
        except ProcessLookupError:
            continue
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


# ---------------------------------------------------------------- what the host gives


def _is_unified() -> bool:
    return (_CGROUP_ROOT / "cgroup.controllers").exists()


_SUBUID_REMEDY = (
    "install `uidmap` and give the user a range: "
    "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
)


def _subordinate_ids(lacks: list[str]) -> tuple[_Range, _Range] | None:
    """The user's ranges in /etc/subuid and /etc/subgid, or None with the reason in ``lacks``."""
    if os.environ.get("CONTAINER_KERNEL_SINGLE_UID"):
        lacks.append("subordinate ids: switched off by CONTAINER_KERNEL_SINGLE_UID")
        return None
    found = []
    for file in ("/etc/subuid", "/etc/subgid"):
        ids = _range_of_user(Path(file))
        if ids is None:
            lacks.append(f"subordinate ids: no usable range for this user in {file}")
            return None
        found.append(ids)
    if shutil.which("newuidmap", path=_SANE_PATH) is None:
        lacks.append("subordinate ids: newuidmap is not installed")
        return None
    return found[0], found[1]


def _range_of_user(file: Path) -> _Range | None:
    """The largest range of this user, if it is large enough to hold an image's usual ids."""
    names = {str(os.getuid())}
    try:
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        pass
    best: _Range | None = None
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, numbers = line.partition(":")
        start, _, count = numbers.partition(":")
        if name in names and start.isdigit() and count.isdigit() and int(count) >= 2000:
            if best is None or int(count) > best.count:
                best = _Range(int(start), int(count))
    return best


def _userns_remedy() -> str:
    """The setting that forbids user namespaces on this host, with the way out."""
    for file, forbids, remedy in (
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "sudo sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            "/proc/sys/user/max_user_namespaces",
            "0",
            "sudo sysctl user.max_user_namespaces=15000",
        ),
    ):
        try:
            if Path(file).read_text().strip() == forbids:
                return (
                    f"this host forbids user namespaces; an administrator can allow them: {remedy}"
                )
        except OSError:
            continue
    return (
        "allow user namespaces; inside a container, that container must allow them "
        "(docker: --security-opt seccomp=unconfined, Kubernetes: hostUsers: false)"
    )


# ---------------------------------------------------------------- the run folder


def _make_run_dir() -> tuple[Path, int]:
    """A fresh 0700 folder, locked while any of our processes lives; sweeps what dead ones left."""
    parent = _run_parent()
    for other in parent.iterdir():
        _sweep_run_dir(other)
    fresh, run_dir = parent / f".new-{os.getpid()}", parent / str(os.getpid())
    for leftover in (fresh, run_dir):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    lock = os.open(fresh / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    fresh.rename(run_dir)  # only now can a sweeper see it, and it is locked
    return run_dir, lock


def _run_parent() -> Path:
    """``$XDG_RUNTIME_DIR/container-kernel``, or a folder in /tmp that is provably ours."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and _is_ours(Path(given)):
        parent = Path(given) / "container-kernel"
    else:
        parent = Path(f"/tmp/container-kernel-{os.getuid()}")
    parent.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(parent):
        raise HostError(
            f"{parent} belongs to somebody else", hint="set XDG_RUNTIME_DIR to a folder of yours"
        )
    return parent


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    is_folder = path.is_dir() and not path.is_symlink()
    return is_folder and found.st_uid == os.getuid() and not found.st_mode & 0o022


def _sweep_run_dir(run_dir: Path) -> None:
    """Remove a run folder, and its cgroups, whose processes are all gone."""
    try:
        lock = os.open(run_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(run_dir, ignore_errors=True)
        _sweep_cgroups(run_dir.name)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def _sweep_cgroups(name: str) -> None:
    """Remove the empty cgroups ``container-kernel/NAME`` of every hierarchy."""
    for top in (*_CGROUP_ROOT.glob(f"*/container-kernel/{name}"), _CGROUP_ROOT / name):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass
