"""Level: how much isolation this host gives, in one word that a notebook can ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import IsolationTooWeak, UsageError
from ..record import record
from . import cgroup as cgroups
from .subordinate import REMEDY

if TYPE_CHECKING:
    from .cgroup import CgroupParent
    from .namespace import Namespace

_RANKS = {"single-uid": 1, "rootless": 2, "no-cgroup": 2, "full": 3}
"""``no-cgroup`` is what ``rootless`` is called where root has no cgroup of its own."""
NAMES = ("full", "rootless", "single-uid")
"""What can be asked for, best first."""


@record
class Level:
    """``name`` is one of the ranks; ``words`` say what it is; each lack has its remedy."""

    name: str
    words: str
    lacks: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"isolation {self.name}: {self.words}"

    def require(self, wanted: str | None) -> None:
        """Raise where ``wanted`` is a better level.

        Raises:
            IsolationTooWeak: it is; the hint is the remedy.
            UsageError: there is no such level.
        """
        if wanted is None:
            return
        check_name(wanted)
        if _RANKS[self.name] < _RANKS[wanted]:
            remedies = [remedy for _, remedy in self.lacks]
            raise IsolationTooWeak(self.name, wanted, hint="; ".join(remedies))


def check_name(name: object) -> None:
    """Raise where there is no level called ``name``.

    Raises:
        UsageError: there is not.
    """
    if name not in _RANKS:
        raise UsageError(
            f"{name!r} is no level of isolation", hint=f"levels are: {', '.join(NAMES)}"
        )


def of(namespace: Namespace, cgroup: CgroupParent | None) -> Level:
    """What containers started in ``namespace`` get."""
    lacks = []
    if namespace.level == "single-uid":
        lacks.append(("all owners in an image are one id", REMEDY))
    if cgroup is None:
        lacks.append(
            ("no cgroup: memory and processes are limited by rlimits", cgroups.remedy())
            if namespace.is_rootless
            else ("no cgroup that we may write", "mount cgroups writable, or start us by systemd")
        )
    who = {
        "root": "started by root, containers without its rights",
        "rootless": "started by a user, who has ids to lend",
        "single-uid": "started by a user, who has one id",
    }[namespace.level]
    held = f"limits held by cgroup v{cgroup.version}" if cgroup else "limits held by rlimits only"
    return Level(_name(namespace.level, cgroup is not None), f"{who}; {held}", tuple(lacks))


def _name(level: str, has_cgroup: bool) -> str:
    if level == "single-uid":
        return level
    if has_cgroup:
        return "full"
    return "no-cgroup" if level == "root" else "rootless"
