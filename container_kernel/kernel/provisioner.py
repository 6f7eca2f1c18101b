"""Provisioner: any kernelspec's kernel, run inside a container of an image.

For a ``kernel.json`` whose metadata says ``"kernel_provisioner": {"provisioner_name":
"container-kernel", "config": {"image": REF}}``. A provisioner stands for the process only, no
message passes through it. So what it starts is our own kernel, on that image, with the
kernelspec's command to be run inside; everything else stays as `LocalProvisioner` does it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode


class ContainerProvisioner(LocalProvisioner):
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
