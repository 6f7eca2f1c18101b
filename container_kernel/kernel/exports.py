"""Exports: what an environment can be written as, for tools that know no notebooks.

`FORMATS` is the table: one line makes a format known to ``%export`` and to the command line.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import BadArguments, CannotExport, output_refused
from ..folders import remove_tree
from ..record import record
from ..transfer.output import destination
from . import images
from .arguments import suggestion

if TYPE_CHECKING:
    from ..build.cancel import Cancel
    from ..build.events import Image, OnEvent
    from ..build.installed import Package
    from ..build.recipe import StageRecipe
    from ..build.step import Step
    from ..workbench import Workbench
    from .magics import Command
    from .verbs import Context

_MARK = ".container-kernel"
_MARKED = "Written by container-kernel; another export replaces this folder.\n"


@record
class Source:
    """Where an export draws from: a stage (the current one) of a notebook in ``directory``."""

    workbench: Workbench
    directory: Path
    stage: str | None
    on_event: OnEvent
    cancel: Cancel

    @property
    def image(self) -> Image:
        """The stage's image, with whatever was stale built again."""
        return self.workbench.image(self.stage, on_event=self.on_event, cancel=self.cancel)

    @property
    def recipe(self) -> list[StageRecipe]:
        """How the stage comes about: the stages it needs, each before who needs it, and it."""
        from ..build.stages import in_order

        bench = self.workbench
        bench.image(self.stage, on_event=self.on_event, cancel=self.cancel)
        wanted = self.stage or bench.current
        assert wanted is not None
        steps = {name: view.steps for name, view in bench.stages.items()}
        return [self._stage(name, steps) for name in in_order(steps, wanted)]

    @property
    def stages(self) -> list[StageRecipe]:
        """How every stage of the notebook comes about."""
        steps = {name: view.steps for name, view in self.workbench.stages.items()}
        return [self._stage(name, steps) for name in steps]

    def packages(self, image: Image) -> tuple[Package, ...]:
        """What is installed in an image."""
        from ..build.installed import packages
        from ..runtime.view import View

        with View(self.workbench.host, self.workbench.store, image.chain_id) as view:
            return packages(view)

    def _stage(self, name: str, steps: dict[str, tuple[Step, ...]]) -> StageRecipe:
        from ..build import recipe

        bench = self.workbench
        image = bench.image(name, on_event=self.on_event, cancel=self.cancel)
        start = bench.stages[name].base, bench.base_image(name, self.cancel)
        others = recipe.others(
            steps[name], steps, lambda other: bench.find_image(other, self.cancel)
        )
        return recipe.StageRecipe.of(name, start, image, steps[name], others)


@record
class Format:
    """One thing to be written: ``write`` fills a new folder, or writes a file if it is none.

    ``name`` is where it lands in the notebook's folder if nobody says.
    """

    name: str
    write: Callable[[Source, Path], None]
    is_folder: bool = True


def run(command: Command, context: Context) -> None:
    """``%export``."""
    from ..display import amounts

    screen, args = context.screen, command.args
    source = Source(
        context.workbench, context.directory, args["stage"], screen.on_event, context.cancel
    )
    path = export(source, args.words[0], args["output"])
    shown = os.path.relpath(path, context.directory)
    screen.show({"text/plain": f"written to {shown}, {amounts.size(weight(path))}"})


def export(source: Source, name: str, output: str | None) -> Path:
    """Write the format called ``name`` to ``output``, in the notebook's folder unless absolute.

    What an earlier export wrote there is replaced, once all of it is written.

    Raises:
        BadArguments: there is no such format.
        CannotExport: the format has no words for something, or ``output`` is somebody else's.
    """
    form = check(name)
    target = Path(os.path.abspath(source.directory / Path(output or form.name).expanduser()))
    if form.is_folder:
        _check_ours(target)
    else:
        target = destination(target)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        if form.is_folder:
            draft.mkdir()
            (draft / _MARK).write_text(_MARKED)
        form.write(source, draft)
        if form.is_folder and target.is_dir():
            remove_tree(target)
        draft.rename(target)
    except OSError as error:
        raise output_refused(target, error) from error
    finally:
        remove_tree(draft) if draft.is_dir() else draft.unlink(missing_ok=True)
    return target


def weight(path: Path) -> int:
    """How many bytes a file has, or all files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir())


def check(name: str) -> Format:
    """The format called ``name``.

    Raises:
        BadArguments: there is none.
    """
    if name not in FORMATS:
        hint = suggestion(name, list(FORMATS)) or "formats are: " + ", ".join(FORMATS)
        raise BadArguments(f"no format called {name!r}", hint=hint)
    return FORMATS[name]


def _check_ours(target: Path) -> None:
    """Return if nothing is lost when ``target`` is replaced."""
    is_folder = target.is_dir() and not target.is_symlink()
    if is_folder and ((target / _MARK).is_file() or not any(target.iterdir())):
        return
    if os.path.lexists(target):
        raise CannotExport(
            f"{target} is there already, and no export wrote it",
            hint="choose another folder with -o, or move that one away",
        )


def _dockerfile(source: Source, folder: Path) -> None:
    from ..build import dockerfile
    from ..build.build_context import BuildContext
    from ..build.site import Site
    from ..build.workplace import Workplace
    from ..runtime.limits import Limits

    bench = source.workbench
    place = Workplace(bench.host, bench.store, lambda: Site(None), Limits())
    context = BuildContext(folder, source.directory, place, bench.ledger.journal)
    text = dockerfile.write(source.recipe, context)
    (folder / "Dockerfile").write_text(text, encoding="utf-8")


def _devcontainer(source: Source, folder: Path) -> None:
    from ..build import friends

    _dockerfile(source, folder)
    name = source.stage or source.directory.name
    text = friends.devcontainer(name, source.image.config.user)
    (folder / "devcontainer.json").write_text(text)


def _requirements(source: Source, folder: Path) -> None:
    from ..build import friends

    *_, stage = source.recipe
    before, after = source.packages(stage.base), source.packages(stage.image)
    (folder / "requirements.txt").write_text(friends.requirements(after))
    (folder / "apt.txt").write_text(friends.apt(before, after))


def _repo2docker(source: Source, folder: Path) -> None:
    from ..build import friends
    from ..runtime.view import View

    *others, stage = source.recipe
    if others:
        raise CannotExport(f"repo2docker knows one stage, and {stage.name!r} needs others")
    packages = source.packages(stage.image)
    bench = source.workbench
    with View(bench.host, bench.store, stage.image.chain_id) as view:
        friends.write_repo2docker(stage, view, packages, folder)


def _statement(source: Source) -> bytes:
    import json

    from ..build import provenance

    recipe, journal = source.recipe, source.workbench.ledger.journal
    layers = [made.layer for stage in recipe for made in stage.steps if made.layer]
    inputs = [one for layer in layers for one in journal.inputs(layer.key, layer.diff_id) or ()]
    document = provenance.statement(recipe, source.packages(recipe[-1].image), inputs)
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _provenance(source: Source, file: Path) -> None:
    file.write_bytes(_statement(source))


def _attested(source: Source, folder: Path) -> None:
    """An OCI layout: the image, and its provenance and bill of materials as referrers."""
    from ..build import provenance, sbom
    from ..transfer import archive, referrer
    from . import bills

    image, store = source.image, source.workbench.store
    name = next(iter(images.names_of(store, image.digest)), None)
    (folder / _MARK).unlink()  # an empty folder is what a layout wants
    archive.save(image.digest, folder, archive.OCI_FOLDER, store=store, ref=name)
    (folder / _MARK).write_text(_MARKED)
    documents = {
        provenance.MEDIA_TYPE: _statement(source),
        bills.MEDIA_TYPES["spdx"]: sbom.write(bills.contents(source), "spdx").encode(),
    }
    for media_type, document in documents.items():
        referrer.attach(folder, image.digest, media_type, document, {})


def _image(form: str) -> Callable[[Source, Path], None]:
    """What writes the stage's image as ``image save --format`` does."""

    def write(source: Source, path: Path) -> None:
        is_folder = path.is_dir()
        if is_folder:
            (path / _MARK).unlink()  # an empty folder is what a layout wants
        images.save(source.workbench.store, source.image.digest, path, form)
        if is_folder:
            (path / _MARK).write_text(_MARKED)

    return write


FORMATS = MappingProxyType(
    {
        "oci": Format("image", _image("oci")),
        "oci-archive": Format("image.oci.tar", _image("oci-archive"), is_folder=False),
        "docker-archive": Format("image.docker.tar", _image("docker-archive"), is_folder=False),
        "sqfs": Format("image.sqfs", _image("sqfs"), is_folder=False),
        "erofs": Format("image.erofs", _image("erofs"), is_folder=False),
        "dockerfile": Format("dockerfile", _dockerfile),
        "devcontainer": Format(".devcontainer", _devcontainer),
        "repo2docker": Format("binder", _repo2docker),
        "requirements": Format("requirements", _requirements),
        "provenance": Format("provenance.json", _provenance, is_folder=False),
        "attested": Format("attested", _attested),
    }
)
"""What ``%export`` can write, by name."""
