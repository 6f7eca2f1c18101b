"""Images: what the store holds by name, and one image in full."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from ..record import record
from . import amounts, layers, markup
from .log import plain
from .markup import Bundle

if TYPE_CHECKING:
    from ..build.events import Image, Layer
    from ..build.proposal import Proposal

MOST_PATHS = 12


@record
class Named:
    """One name in the store and what it means. ``size`` is the sum of the layers.

    Of a damaged image neither is known.
    """

    name: str
    digest: str
    layers: int | None
    size: int | None

    @property
    def amounts(self) -> tuple[str, str]:
        """Layers and size, as people read them."""
        if self.layers is None or self.size is None:
            return "damaged", "?"
        return str(self.layers), amounts.size(self.size)


def listing(images: Iterable[Named], *, with_data: bool = False) -> Bundle:
    """The names in the store."""
    images = list(images)
    shown: Bundle = {"text/plain": table(images), "text/html": _html(images)}
    if with_data:
        shown["application/json"] = data(images)
    return shown


def data(images: Iterable[Named]) -> dict[str, object]:
    """The names in the store, for programs."""
    return {
        "images": [
            {"name": one.name, "digest": one.digest, "layers": one.layers, "size": one.size}
            for one in images
        ]
    }


def table(images: Iterable[Named]) -> str:
    """The names in the store as lines of text."""
    rows = [(plain(one.name), one.digest[:19], *one.amounts) for one in images]
    if not rows:
        return "no image has a name yet; %tag NAME gives the current one a name"
    return markup.columns([("name", "digest", "layers", "size"), *rows], "<<>>")


def _html(images: list[Named]) -> str:
    if not images:
        return markup.muted(markup.text(table(images)))
    rows = [
        (
            markup.code(plain(one.name)),
            markup.code(one.digest[:19], tip=one.digest),
            *one.amounts,
        )
        for one in images
    ]
    columns = (("name", "left"), ("digest", "left"), ("layers", "right"), ("size", "right"))
    return markup.table(columns, rows)


def inspection(image: Image, names: Iterable[str] = (), *, with_data: bool = False) -> Bundle:
    """One image: names, config, layers."""
    known = inspected(image, names)
    facts = [(key, _shown(value)) for key, value in known.items() if value and key != "layers"]
    below = layers.of_image(image)
    rows = [(markup.muted(markup.text(key)), markup.code(value)) for key, value in facts]
    head = markup.table((("", "left"), ("", "left")), rows)
    shown: Bundle = {
        "text/plain": f"{markup.columns(facts, '<<')}\n\n{below['text/plain']}",
        "text/html": f"{head}{below['text/html']}",
    }
    if with_data:
        shown["application/json"] = known
    return shown


def inspected(image: Image, names: Iterable[str] = ()) -> dict[str, object]:
    """One image, for programs."""
    config = image.config
    return {
        "digest": str(image.digest),
        "image_id": str(image.image_id),
        "names": list(names),
        "platform": f"{config.os}/{config.architecture}",
        "env": list(config.env),
        "workdir": config.workdir,
        "user": config.user,
        "entrypoint": list(config.entrypoint or ()),
        "cmd": list(config.cmd or ()),
        "labels": dict(config.labels),
        "layers": [layers.layer_data(layer) for layer in image.layers],
    }


def _shown(value: object) -> str:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return plain(", ".join(f"{key}={value[key]}" for key in value))
    return plain(json.dumps(value, ensure_ascii=False))


def frozen(layer: Layer, image: Image, proposal: Proposal, tag: str | None = None) -> Bundle:
    """What ``%freeze`` says: the layer it made, and the build cells that would make it again."""
    short, size = layer.diff_id.short, amounts.size(layer.size)
    named = f", tagged {tag}" if tag else ""
    name = f", tagged {markup.code(tag)}" if tag else ""
    said = (
        f"frozen as {markup.code(short, tip=layer.diff_id)} "
        + markup.muted(f"&middot; {markup.text(size)} &middot;")
        + f" image {markup.code(image.digest)}{name}"
    )
    again = _again(proposal)
    notes = _notes(proposal)
    cells = "".join(markup.pre(markup.text(cell)) for cell in proposal.cells)
    below = "".join(f"<div>{markup.muted(markup.text(note))}</div>" for note in notes)
    head = f"frozen as {short} · {size} · image {image.digest}{named}"
    return {
        "text/plain": "\n\n".join([head, again, *proposal.cells, *notes]),
        "text/html": (
            f'<div style="font-size:{markup.SIZE};line-height:1.6"><div>{said}</div>'
            f"<div>{markup.muted(markup.text(again))}</div>{cells}{below}</div>"
        ),
    }


def _again(proposal: Proposal) -> str:
    match len(proposal.cells):
        case 0:
            return "There is nothing in it that a build cell would have to make."
        case 1:
            return "The build cell that would make it:"
    return "The build cells that would make it:"


def _notes(proposal: Proposal) -> list[str]:
    notes = [f"Left out, {why}: {_some(paths)}" for why, paths in proposal.left_out.items()]
    if proposal.unexplained:
        notes.append(f"No cell can make: {_some(proposal.unexplained)}")
    if any("%copy --from" in cell for cell in proposal.cells):
        notes.append(
            "%copy takes files out of the frozen image, so keep a name of that: %freeze TAG"
        )
    return [*notes, *proposal.remarks]


def _some(paths: Iterable[str]) -> str:
    """Paths, those of one folder counted together when they are many."""
    shown: list[str] = []
    for folder, group in groupby(sorted(paths), key=os.path.dirname):
        names = [*group]
        shown += [f"{folder}/ ({len(names)} files)"] if len(names) > 2 else names
    rest = f" and {len(shown) - MOST_PATHS} more" if len(shown) > MOST_PATHS else ""
    return plain(", ".join(shown[:MOST_PATHS]) + rest)
