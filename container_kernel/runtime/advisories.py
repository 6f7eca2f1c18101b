"""Advisories: known faults of OCI runtimes and the host kernel that touch containers, by version.

A distribution may have mended one without a new version: so this warns, and refuses nothing. What
the launcher does about each is said with it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..record import field, record

Version = tuple[int, ...]


@record
class Advisory:
    """``fixed`` is the first version without the fault; ``branches`` those of older branches that
    were mended. ``since`` is the first with it.
    """

    cve: str
    program: str
    fixed: Version
    about: str
    branches: Mapping[Version, Version] = field(default_factory=dict)
    since: Version = ()

    def concerns(self, program: str, version: Version) -> bool:
        """Whether that version has the fault."""
        if program != self.program or version < self.since:
            return False
        return version < self.branches.get(version[:2], self.fixed)


_SYMLINKS: dict[Version, Version] = {(1, 2): (1, 2, 8), (1, 3): (1, 3, 3)}
ADVISORIES = (
    Advisory("CVE-2019-5736", "runc", (1, 0), "the runtime overwritten from inside"),
    Advisory("CVE-2023-27561", "runc", (1, 1, 5), "/proc and /sys as links of the image"),
    Advisory("CVE-2024-21626", "runc", (1, 1, 12), "a leaked folder: none is left open for it"),
    Advisory("CVE-2024-45310", "runc", (1, 2), "empty files on the host by a race",
             {(1, 1): (1, 1, 14)}),
    Advisory("CVE-2025-31133", "runc", (1, 4), "masked paths: /dev is never the image's",
             _SYMLINKS),
    Advisory("CVE-2025-52565", "runc", (1, 4), "consoles: none is ever asked for", _SYMLINKS),
    Advisory("CVE-2025-52881", "runc", (1, 4), "writes to /proc: /proc is never the image's",
             _SYMLINKS),
    Advisory("CVE-2026-41579", "runc", (1, 5), "/dev as a link: it is never the image's",
             {(1, 3): (1, 3, 6)}),
    Advisory("CVE-2019-5736", "crun", (0, 12), "the runtime overwritten from inside"),
    Advisory("CVE-2024-21626", "crun", (1, 15), "a leaked folder: none is left open for it"),
    Advisory("CVE-2026-30892", "crun", (1, 27), "names of users on exec: it is given numbers"),
    Advisory("CVE-2026-47766", "crun", (1, 28), "/dev as a link: it is never the image's"),
    Advisory("CVE-2022-0492", "Linux", (5, 17), "release_agent of cgroup v1: not mounted inside",
             {(5, 16): (5, 16, 6), (5, 15): (5, 15, 20), (5, 10): (5, 10, 97),
              (5, 4): (5, 4, 177), (4, 19): (4, 19, 229)}),
    Advisory("CVE-2023-0386", "Linux", (6, 2), "setuid files by overlayfs: upgrade the kernel",
             {(6, 1): (6, 1, 9), (5, 15): (5, 15, 91)}, (5, 11)),
)  # fmt: skip


def open_in(program: str, version: Version) -> list[Advisory]:
    """The faults that this version has, as far as versions tell; none where it is unknown."""
    return [one for one in ADVISORIES if version and one.concerns(program, version)]
