"""Relaxed: what a container may do beyond the default profile, because its user said so.

Each setting is named for what it does, and each is told of where the container's output is seen.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import HostError
from ..record import record
from . import profile

AS_ROOT, ADD_CAP, NO_SECCOMP = "as-root", "add-cap", "no-seccomp"


@record(kw_only=True)
class Relaxed:
    """What is asked for beyond the profile. ``capabilities`` are full names, ``CAP_NET_RAW``."""

    as_root: bool = False
    capabilities: tuple[str, ...] = ()
    no_seccomp: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The settings in force, as one gives them: ``as-root``, ``add-cap NET_RAW``."""
        added = (f"{ADD_CAP} {name.removeprefix('CAP_')}" for name in self.capabilities)
        root, filterless = [AS_ROOT] * self.as_root, [NO_SECCOMP] * self.no_seccomp
        return (*root, *added, *filterless)

    @property
    def held(self) -> tuple[str, ...]:
        """Every capability that a process has."""
        own = profile.AS_ROOT_CAPABILITIES if self.as_root else ()
        return tuple(dict.fromkeys((*own, *self.capabilities)))

    def check(self) -> None:
        """See that this host can give what is asked for.

        Raises:
            HostError: a capability that we do not have ourselves.
        """
        lacking = [name for name in self.capabilities if not _is_ours(name)]
        if lacking:
            raise HostError(
                f"{lacking[0]} cannot be given to a container: this process does not have it",
                hint="leave it out; the host or the container around us withholds it",
            )

    def __or__(self, other: Relaxed) -> Relaxed:
        """What either asks for."""
        return Relaxed(
            as_root=self.as_root or other.as_root,
            capabilities=tuple(dict.fromkeys((*self.capabilities, *other.capabilities))),
            no_seccomp=self.no_seccomp or other.no_seccomp,
        )


USUAL = Relaxed()
"""Nothing beyond the profile."""


def capability(text: str) -> str:
    """The full name of a capability, written ``NET_RAW``, ``net_raw`` or ``CAP_NET_RAW``.

    Raises:
        ValueError: Linux has none of that name.
    """
    name = "CAP_" + text.strip().upper().removeprefix("CAP_")
    if name not in profile.CAPABILITIES:
        raise ValueError("a capability such as NET_RAW or SYS_PTRACE")
    return name


def _is_ours(name: str) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))
    return bool(mask >> profile.CAPABILITIES.index(name) & 1)
