"""Labels: what the host's security modules know a container by, AppArmor and SELinux."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..record import record, replace
from . import apparmor

if TYPE_CHECKING:
    from pathlib import Path

    from .bundle import ContainerSpec, Process
    from .selinux import Label


@record
class Labels:
    """Those of the containers of one process tree; None where the host has no such module."""

    apparmor: str | None
    selinux: Label | None

    @classmethod
    def of_host(cls, run_dir: Path, *, is_rootless: bool) -> Labels:
        """Read what the host has. SELinux's are used where the run folder could be given one."""
        label = None
        if os.path.exists("/sys/fs/selinux/enforce"):
            from . import selinux  # for hosts that have it

            found = selinux.label()
            label = found if found and found.fits(selinux.context_of(run_dir)) else None
        return cls(None if is_rootless else apparmor.profile(), label)

    @property
    def files(self) -> str | None:
        """The context of all files in a root file system, for its mount."""
        return self.selinux.file if self.selinux else None

    def put_on(self, spec: ContainerSpec) -> ContainerSpec:
        """The container with them, with SELinux's if it may then use all that is mounted in it."""
        label = self.selinux if self.selinux and self.selinux.fits_all(spec.mounts) else None
        process = self.of_process(spec.process, label.process if label else None)
        return replace(spec, process=process, mount_label=label.file if label else None)

    def of_process(self, process: Process, context: str | None) -> Process:
        """A process with them; ``context`` is that of its container."""
        return replace(process, apparmor=self.apparmor, selinux=context)
