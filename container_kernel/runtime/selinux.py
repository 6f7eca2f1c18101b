"""SELinux: what the loaded policy has for containers, if it has anything.

As elsewhere in the containers' world, the policy's file ``lxc_contexts`` (selinux_lxc_contexts(5))
names the context of a container's processes and that of its files. A pair of categories of its own
(MCS) keeps what bears it away from other containers, which have the same types.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .bundle import Mount

_CATEGORIES = 1024
_XATTR = "security.selinux"
_PROGRAMS = (Path("/usr/bin"), Path("/bin"), Path("/usr/libexec"))
"""Everybody may read and execute what is here."""


@record
class Label:
    """The contexts of a container's ``process`` and of the ``file`` it may use."""

    process: str
    file: str

    @property
    def shared(self) -> str:
        """The context of files for whichever container is given them."""
        return self.file.rpartition(":")[0]

    def fits(self, context: str) -> bool:
        """Whether a container with this label may use what bears ``context``.

        Of the files' type, and of no other container's pair.
        """
        mine = (self.file, self.shared)
        return context.split(":")[2:] in [one.split(":")[2:] for one in mine]

    def fits_all(self, mounts: Iterable[Mount]) -> bool:
        """Whether it may use all that is mounted in it.

        A user's folder bears a context of theirs, and relabelling it is theirs to do (`remedy`):
        until they have, containers with it are not labelled, and as free as the user is.
        """
        sources = (Path(mount.source) for mount in mounts if mount.kind == "bind")
        return all(
            self.fits(context_of(source)) for source in sources if source.parent not in _PROGRAMS
        )


def is_on(root: Path = Path("/")) -> bool:
    """Whether the host kernel uses it, with a policy."""
    return (root / "sys/fs/selinux/enforce").exists()


def label(root: Path = Path("/")) -> Label | None:
    """A label with a new pair of categories; None without SELinux, or a policy for containers."""
    if not is_on(root):
        return None
    try:
        config = (root / "etc/selinux/config").read_text()
        kind = re.search(r"^SELINUXTYPE=(\S+)", config, re.MULTILINE)
        folder = root / "etc/selinux" / (kind[1] if kind else "targeted")
        text = (folder / "contexts/lxc_contexts").read_text()
    except OSError:
        return None
    known = dict(re.findall(r'^(\w+) = "([^"]+)"$', text, re.MULTILINE))
    if not {"process", "file"} <= known.keys():
        return None
    pair = _pair()
    found = Label(*(_with(pair, known[name]) for name in ("process", "file")))
    return found if _is_known(found, root) else None


def _is_known(found: Label, root: Path) -> bool:
    """Whether the policy has these types: Debian's names them, and has none of them.

    Writing asks, and sets nothing: in one call, whose error says no.
    """
    for context in (found.process, found.file):
        try:
            fd = os.open(root / "sys/fs/selinux/context", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(fd, context.encode() + b"\0")
        except OSError:
            return False
        finally:
            os.close(fd)
    return True


def context_of(path: Path) -> str:
    """The context that a file or folder bears; empty when it bears none."""
    try:
        return os.getxattr(path, _XATTR).decode().removesuffix("\0")
    except OSError:
        return ""


def remedy(folder: Path, wanted: Label) -> str:
    """What lets containers use ``folder``. It is the user's: we relabel nothing of theirs."""
    return f"sudo chcon -R -t {wanted.file.split(':')[2]} -l s0 {folder}"


def _pair() -> str:
    """Two different categories, the lower one first."""
    numbers: set[int] = set()
    while len(numbers) < 2:
        numbers.add(int.from_bytes(os.urandom(2), "big") % _CATEGORIES)
    low, high = sorted(numbers)
    return f"c{low},c{high}"


def _with(pair: str, context: str) -> str:
    user, role, kind, *level = context.split(":")
    return f"{user}:{role}:{kind}:{level[0] if level else 's0'}:{pair}"
