"""AppArmor: the profile for containers that the host has loaded, if it has one.

For root only: an ordinary user's runtime may not choose a profile on every host, and what it would
keep out is kept out by their user namespace.
"""

from __future__ import annotations

import re
from pathlib import Path

_WANTED = ("containers-default", "docker-default")
"""What podman and Docker load; the former with a version behind it."""


def profile(sys: Path = Path("/sys")) -> str | None:
    """The name of the profile, in enforcing mode; None where there is none."""
    try:
        if (sys / "module/apparmor/parameters/enabled").read_text().strip() != "Y":
            return None
        loaded = (sys / "kernel/security/apparmor/profiles").read_text()
    except OSError:
        return None
    names = re.findall(r"^(\S+) \(enforce\)$", loaded, re.MULTILINE)
    return next((n for wanted in _WANTED for n in names if n.startswith(wanted)), None)
