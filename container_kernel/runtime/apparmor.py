"""AppArmor: the profile for containers that the host has loaded, if it has one.

For root only: an ordinary user may not read which profiles are loaded, and what one would keep out
is kept out by their user namespace.
"""

from __future__ import annotations

import re
from pathlib import Path

_WANTED = ("containers-default", "docker-default")
"""What podman and Docker load; the former with a version behind it."""


def is_on(sys: Path = Path("/sys")) -> bool:
    """Whether the host kernel uses it."""
    try:
        return (sys / "module/apparmor/parameters/enabled").read_text().strip() == "Y"
    except OSError:
        return False


def profile(sys: Path = Path("/sys")) -> str | None:
    """The name of the profile, in enforcing mode; None where there is none."""
    try:
        loaded = (sys / "kernel/security/apparmor/profiles").read_text() if is_on(sys) else ""
    except OSError:
        return None
    names = re.findall(r"^(\S+) \(enforce\)$", loaded, re.MULTILINE)
    return next((n for wanted in _WANTED for n in names if n.startswith(wanted)), None)
