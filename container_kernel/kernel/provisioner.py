"""Provisioners: how Jupyter starts our kernel, and any kernelspec's in a container of an image.

A provisioner stands for the process only, no message passes through it. ``container-kernel-spare``
is that of our own kernelspec. ``container-kernel`` is for a ``kernel.json`` of anybody's, whose
metadata says ``"kernel_provisioner": {"provisioner_name": "container-kernel", "config": {"image":
REF}}``: what it starts is our own kernel, on that image, with the kernelspec's command to be run
inside. Everything else stays as `LocalProvisioner` does it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from subprocess import Popen
from typing import Any, ClassVar

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool, Unicode

from .spare import Spare, is_ours

_USUAL = {"env", "cwd", "extra_arguments", "kernel_id"}
"""What servers say of how a kernel is started; a spare was started without more."""
_ORDERED_AFTER_S = 2.0
"""Until then the kernel that was just started has the processors for itself."""


class SpareProvisioner(LocalProvisioner):
    """Starts our kernel, in a server by a process that has loaded everything already."""

    keep_spare = Bool(
        True, help="Whether a server keeps a process ready for the next kernel (some 25 MB)."
    ).tag(config=True)
    _spare: ClassVar[Spare | None] = None

    @staticmethod
    def order(cmd: list[str], environ: dict[str, str]) -> None:
        """Have a process wait for a kernel like that of ``cmd``, if none does."""
        if SpareProvisioner._spare is None:
            SpareProvisioner.keep(Spare(cmd, environ))

    @staticmethod
    def keep(spare: Spare) -> None:
        """Have ``spare`` be the next kernel, if it is like that."""
        SpareProvisioner._spare = spare

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start ``cmd``, or have the process that waits be it."""
        environ, cwd = kwargs.get("env") or dict(os.environ), kwargs.get("cwd")
        is_usual = is_ours(cmd) and kwargs.keys() <= _USUAL
        process = self._take(cmd, environ, cwd) if is_usual else None
        if process is None:
            await super().launch_kernel(cmd, **kwargs)
        else:
            self.process, self.pid, self.pgid = process, process.pid, process.pid
            self.cwd = cwd or os.getcwd()
        if is_usual and self.keep_spare and self._is_in_server:
            loop = asyncio.get_running_loop()
            loop.call_later(_ORDERED_AFTER_S, self.order, cmd, environ)
        return self.connection_info

    @staticmethod
    def _take(cmd: list[str], environ: dict[str, str], cwd: str | None) -> Popen[bytes] | None:
        spare, SpareProvisioner._spare = SpareProvisioner._spare, None
        return spare.be(cmd, environ, cwd) if spare is not None else None

    @property
    def _is_in_server(self) -> bool:
        """Whether more kernels are likely to be started here."""
        return isinstance(getattr(self.parent, "parent", None), MultiKernelManager)


class ContainerProvisioner(SpareProvisioner):
    """Starts a kernelspec's kernel in a container of ``image``."""

    image = Unicode(help="What `%base` takes: a tag, a digest, a base, a path.").tag(config=True)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Keep the kernelspec's environment for the kernel inside."""
        environ = dict(kwargs.get("env", os.environ))
        prepared = await super().pre_launch(**kwargs)
        return {**prepared, "env": environ}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start our kernel in place of ``cmd``, which names a connection file of this host."""
        return await super().launch_kernel(self._our_command(), **kwargs)

    def _our_command(self) -> list[str]:
        spec = self.kernel_spec
        assert self.parent is not None  # the manager, which wrote the connection file
        inside = {
            "argv": spec.argv,
            "env": spec.env,
            "language": spec.language,
            "interrupt_mode": spec.interrupt_mode,
        }
        return [
            *(sys.executable, "-P", "-m", "container_kernel.kernel"),
            *("-f", self.parent.connection_file),
            *("--image", self.image),
            *("--language", spec.language),
            *("--spec", json.dumps(inside)),
        ]
