"""Delegation: how an ordinary user's process tree comes by a cgroup of its own, on cgroup v2.

Only where somebody with the right to it has *delegated* one may a user make cgroups with limits:

- the unit we were started in was delegated (``Delegate=yes``, systemd.resource-control(5)): it is
  ours, and what limits it has hold for us too;
- else, from the user's own slice, the user's systemd is asked for a scope (StartTransientUnit,
  org.freedesktop.systemd1(5)). From a unit of the system that was not delegated nobody is: that
  would be a way out of the limits an administrator gave it.

A cgroup with limits below it may hold no processes itself, so those there move into a leaf. Both
is the supervisor's work (see `namespace`): it alone sees the process ids of the host. It stays
where it was started: a login session ends, and the user's systemd with it, when nobody is left.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .cgroup import LEAF, ROOT, path_of

_BUSCTL = "/usr/bin/busctl"
_PATIENCE_S = 4.0
_POLL_S = 0.001
_SYSTEMD = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)


def claim(name: str, reaper: int) -> None:
    """Have ``reaper`` and what descends from it in the leaf of a cgroup of ours, if one can be had.

    ``name`` is that of the run. When none can be had, nothing changes; `cgroup.remedy` says why.
    """
    with suppress(OSError, ValueError):
        own = path_of("self")
        if own.endswith(f"/{LEAF}"):
            return  # somebody of ours made room already
        if _is_given(own):
            _make_room(own)
        elif bus := _bus(own):
            _make_room(_new_scope(bus, name, _family(reaper)))


def _is_given(own: str) -> bool:
    """Whether a cgroup was delegated to us: one of the system's that is a user's was."""
    if not os.access(ROOT / own.lstrip("/"), os.W_OK):
        return False
    if f"/user@{os.getuid()}.service/" not in f"{own}/":
        return True
    with suppress(OSError):
        return os.getxattr(ROOT / own.lstrip("/"), "user.delegate") == b"1"
    return False


def _bus(own: str) -> Path | None:
    """The socket of the user's D-Bus, if a scope may be asked for there."""
    uid = os.getuid()
    bus = Path(f"/run/user/{uid}/bus")
    return bus if own.startswith(f"/user.slice/user-{uid}.slice/") and bus.exists() else None


def _family(reaper: int) -> list[int]:
    """A process and what descends from it, as the host numbers them."""
    found = [reaper]
    for one in found:
        with suppress(OSError):
            text = Path(f"/proc/{one}/task/{one}/children").read_text()
            found += map(int, text.split())
    return found


def _new_scope(bus: Path, name: str, pids: list[int]) -> str:
    """Ask for a scope with these processes in it; its cgroup, once all of them are there.

    Raises:
        OSError: there is none to be had.
    """
    unit = f"container-kernel-{name}.scope"
    properties = (
        *("PIDs", "au", str(len(pids)), *map(str, pids)),
        *("Delegate", "b", "true"),
        *("Description", "s", "Containers of a notebook"),
        *("CollectMode", "s", "inactive-or-failed"),
    )
    argv = [
        _BUSCTL,
        f"--address=unix:path={bus}",
        f"--timeout={_PATIENCE_S:.0f}",
        "call",
        *_SYSTEMD,
    ]
    call = ("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", "4", *properties, "0")
    done = subprocess.run([*argv, *call], stdin=subprocess.DEVNULL, capture_output=True, env={})
    if done.returncode:
        raise OSError(0, "no scope")
    _wait_until(lambda: all(path_of(str(pid)).endswith(f"/{unit}") for pid in pids))
    return path_of(str(pids[0]))


def _make_room(own: str) -> None:
    """Move the processes of a cgroup into a leaf of it, with those they fork meanwhile."""
    top = ROOT / own.lstrip("/")
    leaf = top / LEAF
    leaf.mkdir(exist_ok=True)

    def is_empty() -> bool:
        pids = (top / "cgroup.procs").read_text().split()
        for pid in pids:
            with suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
        return not pids

    _wait_until(is_empty)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(_POLL_S)
