"""Build context: the folder beside a Dockerfile, with everything that its steps read."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from ..errors import CannotExport
from ..oci.changeset import encode
from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from ..runtime.view import View
from . import settings
from .events import Image, Layer
from .execute import Command
from .inputs import Entry, Folder
from .journal import Journal
from .locking import locked_step
from .packages import Installation
from .step import Download, Packages
from .workplace import Workplace


class BuildContext:
    """Fills ``folder``; ``directory`` is the notebook's. Names are returned relative to it."""

    def __init__(self, folder: Path, directory: Path, place: Workplace, journal: Journal) -> None:
        self._folder = folder
        self._directory = directory
        self._place_of_work = place
        self._journal = journal
        self._store = store = place.store
        self._view = partial(View, place.host, store)
        self._count = 0

    def image(self, name: str, image: Image) -> str:
        """All files of an image as one tar."""
        with self._view(image.chain_id) as view, (self._folder / f"{name}.tar").open("wb") as file:
            encode(view.path, file.write, idmap=self._store.idmap, userxattr=self._store.userxattr)
        return f"{name}.tar"

    def files(self, source: str) -> str:
        """A file or folder of the notebook's folder, as ``%copy`` takes it."""
        target = self._folder / "files" / os.path.normpath(source)
        folder = Folder.of_notebook(self._directory)
        try:
            if self._folder.is_relative_to((self._directory / folder.check(source)).resolve()):
                raise CannotExport(
                    f"%copy {source} would copy what is written here too",
                    hint="choose a folder outside it with -o",
                )
            for entry in folder.walk(source):
                self._place(folder, source, entry, target / entry.path)
        finally:
            folder.close()
        return str(target.relative_to(self._folder))

    def _place(self, folder: Folder, source: str, entry: Entry, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(entry.mode):
            target.mkdir(exist_ok=True)
            # The folder itself is not copied, only what is in it: %copy leaves its mode behind.
            target.chmod(stat.S_IMODE(entry.mode) & 0o777 if entry.path else 0o755)
        elif entry.link is not None:
            if not target.is_symlink():
                target.symlink_to(entry.link)
        else:
            with folder.open(source, entry) as file, target.open("wb") as copy:
                shutil.copyfileobj(file, copy)
            target.chmod(stat.S_IMODE(entry.mode) & 0o777)

    def download(self, step: Download) -> str:
        """The file that ``%download`` brought, out of the store."""
        name = os.path.basename(unquote(step.url.partition("?")[0]))
        target = self._new("downloads", name if name not in ("", ".", "..") else "download")
        digest = Digest(step.digest)
        if not self._store.content.has(digest):
            raise CannotExport(
                f"{step.title}: the file is not in the store any more",
                hint="build the notebook with --no-cache, then export it again",
            )
        with self._store.content.open(digest) as blob, target.open("wb") as file:
            shutil.copyfileobj(blob, file)
        target.chmod(0o644)
        return str(target.relative_to(self._folder))

    def script(self, body: str) -> str:
        """A script that is too long for a line, or for another program than the shell."""
        return self._text("steps", "step", body)

    def beside(self, path: Path) -> str:
        """A file of this host, copied here unless it is here already."""
        if path.is_relative_to(self._folder):
            return str(path.relative_to(self._folder))
        target = self._folder / "tools" / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755)
        return str(target.relative_to(self._folder))

    def package_command(self, step: Packages, layer: Layer, config: ImageConfig) -> Command:
        """What installs exactly what the layer has, fetched by digest: a locked step's command."""
        locked = locked_step(layer, self._journal)
        install = Installation(step, self._place_of_work, self._journal, locked)
        return install.command(self._requirements(step), settings.environment(config))

    def told(self, folder: Path) -> str:
        """What such a command is told, as a folder."""
        target = self._new("locked", "told")
        shutil.copytree(folder, target)
        return str(target.relative_to(self._folder))

    def _requirements(self, step: Packages) -> Mapping[str, Path]:
        folder = Folder.of_notebook(self._directory)
        try:
            return {
                name: self._folder
                / self._text("requirements", os.path.basename(name), folder.read(name).decode())
                for name in step.files
            }
        finally:
            folder.close()

    def _text(self, folder: str, name: str, text: str) -> str:
        target = self._new(folder, name)
        target.write_text(text, encoding="utf-8")
        target.chmod(0o644)
        return str(target.relative_to(self._folder))

    def _new(self, folder: str, name: str) -> Path:
        self._count += 1
        target = self._folder / folder / str(self._count) / name
        target.parent.mkdir(parents=True)
        return target
