"""Bootstrap: make the first layer of a base from its definition, with tools of the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from ..errors import CellError, HostError
from ..runtime.host import find_tool
from ..store.snapshots import Active
from . import debian
from .cancel import Cancel
from .definition import Definition
from .resolved import Input
from .workplace import Workplace


def fill(
    place: Workplace,
    definition: Definition,
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
    locked: Sequence[Input] = (),
) -> list[Input]:
    """Put what ``definition`` says into ``active``; return what it was made of.

    It is made of what is ``locked``, if all of that is in the store.

    Raises:
        CellError: no such kind of definition.
        HostError: the tool that makes it is not installed.
        StepFailed: the tool failed.
    """
    maker = _MAKERS.get(definition.kind)
    if maker is None:
        raise CellError(
            f"{definition.name}: unknown kind {definition.kind!r}",
            hint=f"kinds are: {', '.join(_MAKERS)}",
        )
    return maker(place, definition, active, on_log, cancel, locked)


def _busybox(
    place: Workplace,
    definition: Definition,
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
    locked: Sequence[Input],
) -> list[Input]:
    """The host's static busybox with a link for each of its commands."""
    tool = find_tool("busybox")
    if tool is None:
        raise HostError(
            f"{definition.name} needs a static busybox, which is not installed",
            hint="sudo apt-get install -y busybox-static",
        )
    root = place.store.idmap.to_disk(0)
    upper = active.upper
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "usr"):
        (upper / name).mkdir()
        (upper / name).chmod(0o755)  # whatever the umask here
    (upper / "tmp").chmod(0o1777)
    (upper / "root").chmod(0o700)
    (upper / "bin/busybox").write_bytes(tool.read_bytes())
    (upper / "bin/busybox").chmod(0o755)
    listed = subprocess.run([tool, "--list"], capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        if name != "busybox":
            (upper / "bin" / name).symlink_to("busybox")
    (upper / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (upper / "etc/group").write_text("root:x:0:\n")
    for name in ("passwd", "group"):
        (upper / "etc" / name).chmod(0o644)
    for folder, folders, files in os.walk(upper):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), root, root, follow_symlinks=False)
    return []


_MAKERS = {"mmdebstrap": debian.bootstrap, "busybox": _busybox}
