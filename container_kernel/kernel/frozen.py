"""Frozen: images as kernels of their own in Jupyter's launcher.

Each is a plain kernelspec, so that every front end can start it: our kernel, told which image the
notebook stands on. The image is named by its digest, and kept by a name of its own in the store.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import HostError, ImageError, UsageError
from ..oci.reference import Reference
from ..record import record

KERNELSPEC = Path(__file__).parents[1] / "kernelspec"
PLAIN = "container"
_MODULE = "container_kernel.kernel"


@record
class Frozen:
    """An image as a kernel: what it was called, its digest, the language of its run cells."""

    image: str
    digest: str
    language: str

    def reference(self, name: str) -> str:
        """What the kernel called ``name`` is told to stand on."""
        readable = self.image if _is_name(self.image) else tag_of(name)
        return f"{readable}@{self.digest}"


@record(kw_only=True)
class Place:
    """Where a kernelspec goes: below ``prefix``, else the user's own folder."""

    prefix: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is that of the environment which has this package."""
        return self.prefix is not None and os.path.realpath(self.prefix) == os.path.realpath(
            sys.prefix
        )


@record
class Installed:
    """One of our kernelspecs that Jupyter finds."""

    name: str
    path: str
    display_name: str
    language: str
    image: str | None
    digest: str | None


def _is_name(image: str) -> bool:
    try:
        return not image.startswith((".", "sha256:")) and Reference.parse(image).digest is None
    except ImageError:
        return False


def tag_of(name: str) -> str:
    """The name in the store that keeps the image of the kernel ``name``."""
    return f"kernels/{name}:latest"


def install(
    name: str, frozen: Frozen | None, place: Place, *, display_name: str | None = None
) -> str:
    """Write the kernelspec ``name``, over one of ours if there is one; return its folder.

    Raises:
        UsageError: the name belongs to a kernel that is not ours.
        HostError: the folder cannot be written.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    manager = KernelSpecManager()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, PLAIN)
        shutil.copytree(KERNELSPEC, source)
        file = source / "kernel.json"
        spec = _completed(json.loads(file.read_text()), name, frozen, display_name)
        if not place.is_own:  # a Jupyter that does not know it would refuse the kernel
            del spec["metadata"]["kernel_provisioner"]
        file.write_text(json.dumps(spec, indent=1))
        try:
            _refuse_foreign(name, manager, place)
            return str(
                manager.install_kernel_spec(
                    str(source), name, user=place.prefix is None, prefix=place.prefix
                )
            )
        except OSError as error:
            raise HostError(
                f"cannot install the kernelspec: {error}",
                hint="choose another place with --user, --sys-prefix or --prefix",
            ) from error


def _completed(
    spec: dict[str, Any], name: str, frozen: Frozen | None, display_name: str | None
) -> dict[str, Any]:
    spec["argv"][0] = sys.executable  # the environment that runs this has the package
    if name != PLAIN:
        spec["display_name"] = f"{name} (container)" if frozen else f"Container ({name})"
    if display_name:
        spec["display_name"] = display_name
    if frozen:
        spec["argv"] += ["--image", frozen.reference(name), "--language", frozen.language]
        spec["language"] = frozen.language
        about = {"image": frozen.image, "digest": frozen.digest}
        spec["metadata"] = {**spec["metadata"], "container_kernel": about}
    return spec


def _refuse_foreign(name: str, manager: Any, place: Place) -> None:
    folder = manager._get_destination_dir(name, user=place.prefix is None, prefix=place.prefix)
    there = _read(Path(folder))
    if there and not _is_ours(there):
        raise UsageError(
            f"{name} is another kernel: {there.get('display_name', folder)}",
            hint="choose another name with --name",
        )


def installed() -> Iterator[Installed]:
    """Our kernelspecs that Jupyter finds, sorted by name."""
    from jupyter_client.kernelspec import KernelSpecManager

    for name, path in sorted(KernelSpecManager().find_kernel_specs().items()):
        spec = _read(Path(path))
        if spec and _is_ours(spec):
            about = spec.get("metadata", {}).get("container_kernel", {})
            yield Installed(
                name,
                path,
                str(spec.get("display_name", "")),
                str(spec.get("language", "")),
                about.get("image"),
                about.get("digest"),
            )


def arguments(argv: list[str]) -> list[str]:
    """What of a kernelspec's command says which image ours stands on; nothing if it is another."""
    return argv[argv.index("--image") :] if _MODULE in argv and "--image" in argv else []


def remove(name: str) -> Installed:
    """Remove one of our kernelspecs.

    Raises:
        UsageError: there is none of ours called so.
        HostError: its folder cannot be removed.
    """
    ours = {one.name: one for one in installed()}
    found = ours.get(name)
    if found is None:
        known = ", ".join(ours) or "none"
        raise UsageError(f"no kernel of ours is called {name!r}", hint=f"there are: {known}")
    try:
        shutil.rmtree(found.path)
    except OSError as error:
        raise HostError(
            f"cannot remove {found.path}: {error.strerror}",
            hint="ask whoever installed it",
        ) from error
    return found


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        spec = json.loads((folder / "kernel.json").read_text())
    except (OSError, ValueError):
        return None
    return spec if isinstance(spec, dict) else None


def _is_ours(spec: dict[str, Any]) -> bool:
    argv = spec.get("argv")
    return isinstance(argv, list) and _MODULE in argv
