"""Step: one build action, as a value.

A cell's text becomes steps in ``kernel.magics``; the solver turns steps into layers. What a step
means is versioned (``MEANING``), so that a later version of this package may improve how, say,
packages are installed without pretending that an old layer is the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..record import record

if TYPE_CHECKING:
    from ..runtime.mounts import Wish

MEANING = {"definition": 2, "build": 1, "apt": 2, "pip": 3, "npm": 3, "copy": 1, "download": 1}


@record
class Base:
    """``%base``: the image a stage starts from."""

    reference: str
    stage: str = "main"

    @property
    def title(self) -> str:
        """What a card shows."""
        suffix = "" if self.stage == "main" else f" --as {self.stage}"
        return f"%base {self.reference}{suffix}"


@record
class Use:
    """``%use``: the build cells that follow belong to another stage. Builds nothing."""

    stage: str


@record
class Shell:
    """``%%build``: a shell body, run with ``set -e``.

    ``cache`` names folders inside the container that persist between builds and are in no layer.
    """

    body: str
    name: str | None = None
    net: str | None = None
    cache: tuple[str, ...] = ()
    mounts: tuple[Wish, ...] = ()
    secrets: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    ssh: bool = False

    @property
    def title(self) -> str:
        """The name, or the first line that is not a comment."""
        lines = (line.strip() for line in self.body.splitlines())
        first = next((line for line in lines if line and not line.startswith("#")), "")
        return f"%%build {self.name or first}"


@record
class Packages:
    """``%apt``, ``%pip``, ``%npm``: packages by name and from requirement files."""

    manager: str
    names: tuple[str, ...]
    files: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The magic as typed, near enough."""
        files = [word for file in self.files for word in ("-r", file)]
        return " ".join([f"%{self.manager}", *self.options, *files, *self.names])


@record
class Copy:
    """``%copy``: files of the notebook's folder, or of another stage."""

    sources: tuple[str, ...]
    destination: str
    from_stage: str | None = None

    @property
    def title(self) -> str:
        """The magic as typed, near enough."""
        origin = ["--from", self.from_stage] if self.from_stage else []
        return " ".join(["%copy", *self.sources, self.destination, *origin])


@record
class Download:
    """``%download``: a file from a URL, named by its digest."""

    url: str
    digest: str
    destination: str | None = None

    @property
    def title(self) -> str:
        """The magic, with the digest shortened."""
        return f"%download {self.url} {self.digest[:19]}"


@record
class Setting:
    """``%env``, ``%workdir``, ``%user``, ``%label``, ``%entrypoint``, ``%cmd``: no layer."""

    key: str
    values: tuple[str, ...]

    @property
    def title(self) -> str:
        """The magic as typed, near enough."""
        return " ".join([f"%{self.key}", *self.values])


Made = Shell | Packages | Copy | Download
"""What makes a layer."""
Step = Made | Setting
Items = tuple[Base | Step, ...]
"""What one build cell says, in order."""
