"""Verbs: what each command magic does, in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..display import images as shown_images
from ..display import layers as shown_layers
from ..errors import BadArguments, NoBase
from ..record import record
from . import help, images
from .magics import Command
from .outputs import Outputs
from .pump import pump
from .wire import Dict

if TYPE_CHECKING:
    from ..build.cancel import Cancel
    from ..build.events import Image
    from ..oci.digest import Digest
    from ..runtime.live import Live
    from ..workbench import Workbench
    from .screen import Screen


@record
class Context:
    """What a verb works with. ``inner`` is what the kernel inside says of itself, if it runs;
    ``again`` runs the build cell that failed last.
    """

    workbench: Workbench
    screen: Screen
    cancel: Cancel
    directory: Path
    inner: Dict
    outputs: Outputs
    has_run: Callable[[Live], bool]
    again: Callable[[Screen, Cancel], None] | None


@record
class Needs:
    """The live container a command runs in."""

    stage: str | None


def run(command: Command, context: Context) -> None:
    """Do what ``command`` says.

    Raises:
        ContainerKernelError: it cannot be done.
    """
    _VERBS[command.name](command, context)


def needs_live(commands: Sequence[Command]) -> Needs | None:
    """The live container that must run first, if the commands need one."""
    found = next((one for one in commands if _is_beside(one)), None)
    return Needs(found.args["stage"]) if found else None


def _is_beside(command: Command) -> bool:
    match command.name:
        case "sh":
            return True
        case "shell":
            return not command.args["failed"]
        case "freeze":
            return command.args["kernel"] is not None
    return False


def names(workbench: Workbench, directory: Path) -> dict[str, Callable[[str], Iterable[str]]]:
    """Where completion finds names. The tags are read in another thread than the worker."""
    return {"stage": lambda _: workbench.stage_names, "path": help.folder(directory)}


def _help(command: Command, context: Context) -> None:
    context.screen.show({"text/plain": help.help(command.args.word())})


# The environment


def _use(command: Command, context: Context) -> None:
    context.workbench.use(command.args.words[0])


def _layers(command: Command, context: Context) -> None:
    stages = context.workbench.stages
    stage = command.args.word() or context.workbench.current
    if stage is None:
        raise NoBase("there are no layers yet")
    if stage not in stages:
        raise BadArguments(f"no stage called {stage!r}", hint=f"stages are: {', '.join(stages)}")
    context.screen.show(shown_layers.bundle(stages, stage, with_data=command.args["json"]))


def _freeze(command: Command, context: Context) -> None:
    tag = command.args.word()
    full = images.full_name(tag) if tag else None
    image = context.workbench.freeze(full, stage=command.args["stage"])
    from ..build.proposal import propose
    from . import lines

    store, host = context.workbench.store, context.workbench.host
    lines.frozen(context.workbench, command.args["stage"], image)
    made = propose(host, store, image.chain_id, full or str(image.digest))
    context.screen.show(shown_images.frozen(image.layers[-1], image, made, full))
    if kernel := command.args["kernel"]:
        _install(kernel, full, image, context)


def _install(name: str, tag: str | None, image: Image, context: Context) -> None:
    """Make a frozen image a kernel of its own, for the user."""
    from . import frozen

    language = context.inner.get("language_info", {}).get("name", "python")
    made = frozen.Frozen(tag or frozen.tag_of(name), str(image.digest), str(language))
    images.tag(context.workbench.store, image.digest, frozen.tag_of(name))
    frozen.install(name, made, frozen.Place())
    context.screen.show({"text/plain": f"{name} is a kernel in the launcher from now on"})


def _tag(command: Command, context: Context) -> None:
    name = images.full_name(command.args.words[0])
    stage = command.args["stage"]
    image = context.workbench.away.get(stage or context.workbench.current or "")
    image = image or _image(stage, context)
    images.tag(context.workbench.store, image.digest, name)
    context.screen.show({"text/plain": f"{name} is {image.digest}"})


# Images of the store


def _image_list(command: Command, context: Context) -> None:
    named = images.named(context.workbench.store)
    context.screen.show(shown_images.listing(named, with_data=command.args["json"]))


def _image_inspect(command: Command, context: Context) -> None:
    image = _image(command.args.word(), context)
    known = images.names_of(context.workbench.store, image.digest)
    context.screen.show(shown_images.inspection(image, known, with_data=command.args["json"]))


def _image(reference: str | None, context: Context) -> Image:
    """An image by stage or name; the current stage's when none is given."""
    workbench = context.workbench
    if reference is None or reference in workbench.stage_names:
        return workbench.image(reference, on_event=context.screen.on_event, cancel=context.cancel)
    return images.image(workbench.store, images.find(workbench.store, reference))


def _digest(reference: str | None, context: Context) -> Digest:
    return _image(reference, context).digest


def _image_tag(command: Command, context: Context) -> None:
    reference, name = command.args.words
    digest = _digest(reference, context)
    full = images.tag(context.workbench.store, digest, name)
    context.screen.show({"text/plain": f"{full} is {digest}"})


def _image_rm(command: Command, context: Context) -> None:
    removed = images.remove(context.workbench.store, command.args.words)
    context.screen.show({"text/plain": "removed " + ", ".join(removed)})


def _image_save(command: Command, context: Context) -> None:
    *reference, file = command.args.words
    digest = _digest(reference[0] if reference else None, context)
    path = _path(file, context)
    form, layer = command.args["format"], command.args["layer"]
    images.save(context.workbench.store, digest, path, form, layer=layer)
    context.screen.show({"text/plain": f"saved {digest} to {file}"})


def _image_load(command: Command, context: Context) -> None:
    path = _path(command.args.words[0], context)
    loaded = images.load(
        context.workbench.store,
        path,
        command.args["as"],
        on_log=lambda text: context.screen.stream("stdout", f"{text}\n"),
    )
    lines = [f"loaded {digest}" + (f" as {name}" if name else "") for name, digest in loaded]
    context.screen.show({"text/plain": "\n".join(lines)})


def _image_push(command: Command, context: Context) -> None:
    from . import travel

    *image, name = command.args.words
    if image:
        digest = _digest(image[0], context)
    else:  # what has that name here, else what the notebook has built
        digest = context.workbench.store.find_image(name) or _digest(None, context)
    travel.push(command, context, digest)


def _image_pull(command: Command, context: Context) -> None:
    from . import travel

    travel.pull(command, context)


def _path(name: str, context: Context) -> Path:
    """A path in the notebook's folder; one that starts with / or ~ is where it says."""
    return context.directory / Path(name).expanduser()


def _export(command: Command, context: Context) -> None:
    from . import exports

    exports.run(command, context)


def _sbom(command: Command, context: Context) -> None:
    from . import bills

    bills.run(command, context)


# Running


def _sh(command: Command, context: Context) -> None:
    workbench = context.workbench
    stage = command.args["stage"]
    live = workbench.live(stage, on_event=context.screen.on_event, cancel=context.cancel)
    container = live.exec(["sh", "-c", command.body or ""], {})
    try:
        pump(container, context.screen.stream, context.cancel)
    finally:
        container.delete()


def _failing(command: Command, context: Context) -> None:
    from . import failing

    getattr(failing, command.name)(command, context)


def _run(command: Command, context: Context) -> None:
    from . import fresh

    fresh.run(command, context)


def _limits(command: Command, context: Context) -> None:
    from . import limiting

    limiting.limits(command, context)


def _top(command: Command, context: Context) -> None:
    from . import top

    top.run(command, context)


def _isolation(command: Command, context: Context) -> None:
    from . import isolating

    isolating.run(command, context)


def _why(command: Command, context: Context) -> None:
    from . import records

    records.why(command, context)


def _stale(command: Command, context: Context) -> None:
    from . import records

    records.stale(command, context)


def _lock(command: Command, context: Context) -> None:
    from . import records

    records.lock(command, context)


def _verify(command: Command, context: Context) -> None:
    from . import records

    records.verify(command, context)


def _line(command: Command, context: Context) -> None:
    from . import lines

    lines.VERBS[command.name](command, context)


def _connect(command: Command, context: Context) -> None:
    from . import connections

    connections.VERBS[command.name](command, context)


_VERBS: dict[str, Callable[[Command, Context], None]] = {
    "help": _help,
    "use": _use,
    "layers": _layers,
    "freeze": _freeze,
    "tag": _tag,
    "images": _image_list,
    "image list": _image_list,
    "image inspect": _image_inspect,
    "image tag": _image_tag,
    "image rm": _image_rm,
    "image save": _image_save,
    "image load": _image_load,
    "why": _why,
    "stale": _stale,
    "lock": _lock,
    "verify": _verify,
    "image push": _image_push,
    "image pull": _image_pull,
    "export": _export,
    "sbom": _sbom,
    "sh": _sh,
    "run": _run,
    "limits": _limits,
    "top": _top,
    "isolation": _isolation,
    **dict.fromkeys(("shell", "retry", "discard"), _failing),
    **dict.fromkeys(("undo", "checkout", "branch", "diff"), _line),
    **dict.fromkeys(("net", "mount", "unmount", "publish", "volume list", "volume rm"), _connect),
}
