"""Which inner kernel an image offers: a kernelspec of its own, ``python3``, or just ``sh``.

An image's files are a stranger's: they are opened inside its root only, and read up to a limit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from ..record import field, record
from .objects import parse_object

SPEC_FOLDERS = ("/usr/local/share/jupyter/kernels", "/usr/share/jupyter/kernels")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SPEC_LIMIT = 1 << 20

Open = Callable[[str], int | None]


@record
class KernelSpec:
    """What of an image's ``kernel.json`` matters to whoever starts it."""

    name: str
    argv: tuple[str, ...]
    language: str = ""
    interrupt_mode: str = "signal"
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, data: bytes, folder: str) -> KernelSpec | None:
        """Read ``kernel.json``; None if it could not start anything."""
        spec = parse_object(data)
        argv = spec.get("argv")
        if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv):
            return None
        env = spec.get("env")
        pairs = env.items() if isinstance(env, dict) else ()
        return cls(
            name,
            tuple(word.replace("{resource_dir}", folder) for word in argv),
            str(spec.get("language", "")),
            str(spec.get("interrupt_mode", "signal")),
            {str(key): str(value) for key, value in pairs},
        )

    def command(self, connection_file: str) -> list[str]:
        """The argv that starts it, as the image resolves it."""
        return [word.replace("{connection_file}", connection_file) for word in self.argv]


def find_spec(open_in_image: Open, wanted: str | None = None) -> KernelSpec | None:
    """The image's kernelspec called ``wanted``; else ``python3``; else the first by name."""
    found: dict[str, KernelSpec] = {}
    for folder in _folders(open_in_image):
        for name in _names(open_in_image, folder):
            data = read(open_in_image, f"{folder}/{name}/kernel.json")
            spec = KernelSpec.parse(name, data, f"{folder}/{name}") if data else None
            if spec:
                found.setdefault(name, spec)
    if wanted is not None:
        return found.get(wanted)
    return found.get("python3") or next((found[name] for name in sorted(found)), None)


def _folders(open_in_image: Open) -> Iterator[str]:
    yield from SPEC_FOLDERS
    for name in _names(open_in_image, "/opt"):
        yield f"/opt/{name}/share/jupyter/kernels"


def _names(open_in_image: Open, folder: str) -> list[str]:
    fd = open_in_image(folder)
    if fd is None:
        return []
    try:
        return sorted(os.listdir(fd))[:200]
    except OSError:
        return []
    finally:
        os.close(fd)


def read(open_in_image: Open, path: str) -> bytes | None:
    """The content of a regular file in the image, None if it is not there or too large."""
    fd = open_in_image(path)
    if fd is None:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _SPEC_LIMIT:
            return None
        return os.read(fd, _SPEC_LIMIT)
    except OSError:
        return None
    finally:
        os.close(fd)


def has_command(open_in_image: Open, name: str, path: str = DEFAULT_PATH) -> bool:
    """Whether ``name`` is on the image's ``PATH``."""
    folders = (folder for folder in path.split(":") if folder.startswith("/"))
    return any(has_file(open_in_image, f"{folder}/{name}") for folder in folders)


def has_file(open_in_image: Open, path: str) -> bool:
    """Whether something is at ``path`` in the image."""
    fd = open_in_image(path)
    if fd is None:
        return False
    os.close(fd)
    return True
