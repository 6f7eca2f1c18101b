"""Travel: ``%image push`` and ``%image pull``, in the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..build import registries
from ..build.registries import Registries
from ..display import travel as shown
from . import images

if TYPE_CHECKING:
    from ..oci.digest import Digest
    from ..transfer.registry_http import Access
    from .magics import Command
    from .verbs import Context


def push(command: Command, context: Context, digest: Digest) -> None:
    """Send the image ``digest`` to where the last word says."""
    from ..transfer.push import push as push_image

    name, dry_run = command.args.words[-1], command.args["dry-run"]
    workbench = context.workbench
    line = shown.TrafficLine(lambda text: context.screen.stream("stdout", text))
    pushed = push_image(
        digest,
        registries.needed(name),
        workbench.store,
        _access(context),
        compression=command.args["compression"],
        dry_run=dry_run,
        on_traffic=line.on_traffic,
    )
    context.screen.show({"text/plain": shown.pushed_text(name, pushed, dry_run=dry_run)})


def pull(command: Command, context: Context) -> None:
    """Bring an image from a registry, and name it."""
    from ..transfer.pull import pull as pull_image

    reference = registries.needed(command.args.words[0]).with_default_tag()
    dry_run = command.args["dry-run"]
    workbench = context.workbench
    line = shown.TrafficLine(lambda text: context.screen.stream("stdout", text))
    pulled = pull_image(
        reference,
        workbench.store,
        _access(context),
        dry_run=dry_run,
        on_traffic=line.on_traffic,
    )
    name = command.args["as"] or images.name_of(reference)
    if name and not dry_run:
        name = images.tag(workbench.store, pulled.digest, name)
    shown_name = name or str(reference)
    context.screen.show({"text/plain": shown.pulled_text(shown_name, pulled, dry_run=dry_run)})


def _access(context: Context) -> Access:
    """How the user of this notebook reaches registries."""
    config = context.workbench.config
    known = Registries(config.environ, config.user_home, config.plain_http)
    return known.access(context.cancel, lambda text: context.screen.stream("stderr", f"{text}\n"))
