"""Grants: what the user's configuration lets cells ask for by name.

A cell names a network set, a secret or a device; only what the configuration says these are is
ever given. A notebook's metadata is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..record import field, record


@record(kw_only=True)
class Grants:
    """``networks`` are sets of hosts by name, ``secrets`` are sources (``env:NAME``,
    ``file:PATH``) by ID, ``devices`` are paths. ``environ`` and ``home`` are the user's.
    """

    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    devices: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    home: Path = Path("/")
    check_network: Callable[[str], None] = field(default_factory=lambda: lambda kind: None)
    """Raises where the administrator of this host does not allow a network."""
