"""Namespace: the private place where everything that mounts happens.

``enter`` turns the calling process into the supervisor of a copy of itself that lives in mount and
process namespaces of its own (and in a user namespace when the user is not root), as ``podman
unshare`` does for mounts. Four processes, of which three stay:

- the *supervisor* is the process that was started. It stays outside, forwards signals, follows
  its parent and hands on the exit status.
- a *stepping stone* makes the namespaces and ends at once: the supervisor must write the id map
  from outside (newuidmap(1)) and only a child of the stepping stone is in the new pid namespace.
- the *reaper* is pid 1 in there. The host kernel kills it with the supervisor, and everything
  else in the namespace, containers included, with it: nothing outlives its owner.
- the *worker* is where ``enter`` returns.

So no mount ever appears on the host, and SIGKILL to any of the three leaves nothing running. What
they leave in files, their *janitor* sweeps (see `janitor`), which is none of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from .. import syscalls
from ..errors import HostError
from ..folders import remove_tree
from ..oci.idmap import IdMap
from ..record import record, replace
from . import janitor, run_dir, subordinate
from .subordinate import Range

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_SETTLES_WITHIN_S = 10.0
_Ranges = tuple[Range, Range] | None


class _MapRefused(HostError):
    """The ids that a user is lent could not be mapped after all."""


@record
class Namespace:
    """Where this process is. ``level`` is ``root``, ``rootless`` or ``single-uid``.

    ``run_dir`` is a folder of this process tree alone (0700), gone when it ends. ``lacks`` says
    in words what this host did not give.
    """

    level: str
    idmap: IdMap
    run_dir: Path
    lacks: tuple[str, ...] = ()
    settled: int = -1
    """Where `settle` waits."""

    @property
    def is_rootless(self) -> bool:
        """True when an ordinary user started it."""
        return self.level != "root"

    def settle(self) -> None:
        """Wait until the supervisor has looked for a cgroup of ours (see `delegation`)."""
        if self.settled >= 0:
            syscalls.readable([self.settled], _SETTLES_WITHIN_S)


def enter(environ: Mapping[str, str]) -> Namespace:
    """Go on in namespaces of our own; call once, early, with a single thread.

    Only the worker returns. The process that called stays behind as supervisor and ends with
    the worker's exit status.

    Raises:
        HostError: this host does not allow it; the caller goes on outside, unchanged.
    """
    # "End when I end", in Jupyter's words. Asked at once: it may end while we are at it.
    parent = os.getppid() if "JPY_PARENT_PID" in environ else None
    folder, lock = run_dir.make(environ)
    lacks: list[str] = []
    ranges = None if os.getuid() == 0 else subordinate.find(environ, lacks)
    try:
        try:
            return _fork_inside(folder, lock, ranges, tuple(lacks), parent)
        except _MapRefused as refused:  # one id is the next best
            lacks.append(f"subordinate ids: {refused.message}")
            return _fork_inside(folder, lock, None, tuple(lacks), parent)
    except HostError:
        remove_tree(folder)
        os.close(lock)
        raise


def _fork_inside(
    folder: Path, lock: int, ranges: _Ranges, lacks: tuple[str, ...], parent: int | None
) -> Namespace:
    uid, gid = os.getuid(), os.getgid()
    report_r, report_w = os.pipe()
    go_r, go_w = os.pipe()
    alive_r, alive_w = os.pipe()
    settled_r, settled_w = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    stone = os.fork()
    if stone == 0:
        for fd in (report_r, go_w, alive_w, settled_w):
            os.close(fd)
        namespace = _cross(uid, gid, ranges, folder, lacks, (report_w, go_r, alive_r))
        os.close(alive_r)
        return replace(namespace, settled=settled_r)
    for fd in (report_w, go_r, alive_r, settled_r):
        os.close(fd)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    try:
        reaper = _guide(stone, ranges, report_r, go_w)
    finally:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
        for fd in (report_r, go_w):
            os.close(fd)
    return _supervise(reaper, folder, lock, parent, settled_w)


# ---------------------------------------------------------------- the supervisor


def _guide(stone: int, ranges: _Ranges, report: int, go: int) -> int:
    """Map ids for the stepping stone and return the reaper's pid."""
    reaper = 0
    with os.fdopen(os.dup(report), "r", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "unshared":
                problem = subordinate.write_maps(stone, ranges) if ranges else ""
                os.write(go, b"x" if problem else b"m")
                if problem:
                    os.waitpid(stone, 0)
                    raise _MapRefused(problem, hint=subordinate.REMEDY)
                os.waitpid(stone, 0)  # from here on the reaper is our own child
                stone = 0
                if not syscalls.readable([report], 0):
                    break  # somebody killed it, and the reaper waits for us: it ends with `go`
            elif word == "reaper":
                reaper = int(rest)
                os.write(go, b"p")
            elif word == "ready":
                return reaper
            elif word == "failed":
                if reaper or stone:
                    os.waitpid(reaper or stone, 0)
                raise HostError(rest, hint=_userns_remedy())
    raise HostError("the process that makes namespaces ended without a word")


def _supervise(reaper: int, folder: Path, lock: int, parent: int | None, settled: int) -> NoReturn:
    """Wait for the reaper, pass signals on, follow our parent; end as the worker ended."""
    for ignored in (signal.SIGINT, signal.SIGQUIT):  # a terminal sends these to the worker too
        signal.signal(ignored, signal.SIG_IGN)
    watched = {signal.SIGCHLD, *_FORWARDED}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    swept = janitor.start(folder, reaper)
    if os.getuid() and _is_unified():
        from . import delegation  # by this process alone

        delegation.claim(folder.name, reaper)
    os.close(settled)
    while True:
        pid, status = os.waitpid(reaper, os.WNOHANG)
        if pid:
            break
        if parent is not None and os.getppid() != parent:
            os.kill(reaper, signal.SIGKILL)
        info = signal.sigtimedwait(watched, 1.0)
        if info is not None and info.si_signo in _FORWARDED:
            os.kill(reaper, info.si_signo)
    os.close(lock)
    os.read(swept, 1)
    run_dir.sweep(folder)  # in case somebody has killed the janitor
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


# ---------------------------------------------------------------- stepping stone, reaper, worker


def _cross(
    uid: int,
    gid: int,
    ranges: _Ranges,
    folder: Path,
    lacks: tuple[str, ...],
    pipes: tuple[int, int, int],
) -> Namespace:
    report, go, alive = pipes
    try:
        _unshare(uid, gid, ranges is not None, report, go)
        reaper = os.fork()
        if reaper:
            os.write(report, b"reaper %d\n" % reaper)
            os._exit(0)
        # The death signal follows the parent: wait until that is the supervisor.
        if os.read(go, 1) != b"p":
            os._exit(1)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if syscalls.readable([alive], 0):
            os._exit(1)
        _mount_own_views(uid)
        _keep_in_memory(folder, run_dir.mode(uid))
        if uid:
            _leave_half_of_inotify()
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
    idmap = subordinate.mapped()
    level = "root" if idmap.is_identity else "single-uid" if idmap.squash else "rootless"
    return Namespace(level, idmap, folder, lacks)


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


def _leave_half_of_inotify() -> None:
    """What a container takes of it is counted as its user's, whose editor needs some too.

    A user namespace has limits of its own, which its root may lower (namespaces(7)). Where it may
    not, what the user has is the limit.
    """
    for what in ("instances", "watches"):
        with suppress(OSError, ValueError):
            most = int(Path(f"/proc/sys/fs/inotify/max_user_{what}").read_text())
            Path(f"/proc/sys/user/max_inotify_{what}").write_text(str(max(1, most // 2)))


def _keep_in_memory(folder: Path, mode: int) -> None:
    """Give the run folder no disk: what lies in it is small, and made while somebody waits.

    Containers are given parts of it, which SELinux is to allow them.
    """
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    if os.path.exists("/sys/fs/selinux/enforce"):
        from . import selinux  # for hosts that have it

        if label := selinux.label():
            with suppress(OSError):  # which `labels` sees
                data = f'mode={mode:o},context="{label.shared}"'
                syscalls.mount("tmpfs", str(folder), "tmpfs", flags, data)
                return
    syscalls.mount("tmpfs", str(folder), "tmpfs", flags, f"mode={mode:o}")


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


def forbidden() -> list[tuple[str, str, str]]:
    """Kinds of namespaces that this host has set to none: kind, file, and what allows them."""
    found = []
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        file = f"/proc/sys/user/max_{kind}_namespaces"
        with suppress(OSError):
            if Path(file).read_text().strip() == "0":
                remedy = f"sudo sysctl user.max_{kind}_namespaces=15000"
                found.append((kind, file, remedy))
    return found


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
    ):
        try:
            if Path(file).read_text().strip() == forbids:
                return (
                    f"this host forbids user namespaces; an administrator can allow them: {remedy}"
                )
        except OSError:
            continue
    for kind, _, remedy in forbidden():
        return f"this host forbids {kind} namespaces; an administrator can allow them: {remedy}"
    return (
        "allow user namespaces; inside a container, that container must allow them "
        "(docker: --security-opt seccomp=unconfined, Kubernetes: hostUsers: false)"
    )
