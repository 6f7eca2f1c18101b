"""Layers: what an image is made of, as text, HTML and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import amounts, markup
from .log import plain
from .markup import Bundle

if TYPE_CHECKING:
    from ..build.events import Image, Layer
    from ..build.stages import StageView


def bundle(stages: Mapping[str, StageView], stage: str, *, with_data: bool = False) -> Bundle:
    """The layers of one of ``stages``; the data is that of all of them."""
    shown = of_stage(stages[stage], alone=len(stages) == 1)
    if with_data:
        shown["application/json"] = {"current": stage, "stages": data(stages)}
    return shown


def of_stage(view: StageView, *, alone: bool = True) -> Bundle:
    """The layers of a stage, and whether they are still what its cells say."""
    name = [] if alone and view.name == "main" else [f"stage {view.name}"]
    if view.image is None:
        note = " · ".join([*name, f"base {view.base}", "not built yet"])
        return {"text/plain": note, "text/html": markup.muted(markup.text(note))}
    notes = [*name, *(["stale: its cells have changed since"] if view.is_stale else [])]
    return of_image(view.image, notes)


def of_image(image: Image, notes: list[str] | None = None) -> Bundle:
    """The layers of an image, its digest first.

    Which of them were built this time is in the data only: the same image is the same output.
    """
    total = amounts.size(sum(layer.size for layer in image.layers))
    layers = f"{len(image.layers)} layer{'s' if len(image.layers) != 1 else ''}"
    return {
        "text/plain": _plain(image, [layers, total, *(notes or [])]),
        "text/html": _html(image, [layers, total, *(notes or [])]),
    }


def data(stages: Mapping[str, StageView]) -> dict[str, object]:
    """Every stage as the command line's ``--json`` has it."""
    return {name: stage_data(view.image) for name, view in stages.items()}


def stage_data(image: Image | None) -> dict[str, object]:
    """One stage: the image's digest and its layers."""
    if image is None:
        return {"digest": None, "layers": []}
    return {"digest": str(image.digest), "layers": [layer_data(layer) for layer in image.layers]}


def layer_data(layer: Layer) -> dict[str, object]:
    """One layer."""
    return {
        "diff_id": str(layer.diff_id),
        "size": layer.size,
        "cached": layer.cached,
        "seconds": round(layer.seconds, 3),
        "created_by": layer.created_by,
    }


def _rows(image: Image) -> list[tuple[str, str, str, str]]:
    return [
        (
            str(number),
            plain(layer.created_by.replace("\n", " ")),
            amounts.size(layer.size),
            layer.diff_id.short,
        )
        for number, layer in enumerate(image.layers, 1)
    ]


def _plain(image: Image, notes: list[str]) -> str:
    head = " · ".join([f"image {image.digest}", *notes])
    rows = [(n, _clipped(title), *rest) for n, title, *rest in _rows(image)]
    table = markup.columns([("#", "created by", "size", "diff_id"), *rows], "><><")
    return f"{head}\n\n{table}"


def _clipped(title: str, width: int = 60) -> str:
    return title if len(title) <= width else title[: width - 1] + "…"


def _html(image: Image, notes: list[str]) -> str:
    rows = []
    for layer, (number, title, size, short) in zip(image.layers, _rows(image), strict=True):
        created_by = markup.code(title)
        diff_id = markup.code(short, tip=layer.diff_id)
        rows.append((markup.muted(number), created_by, markup.text(size), diff_id))
    said = " &middot; ".join(markup.text(note) for note in notes)
    columns = (
        ("#", "right"),
        ("created by", "left"),
        ("size", "right"),
        ("diff_id", "left"),
    )
    caption = f"image {markup.code(image.digest)} {markup.muted(f'&middot; {said}')}"
    return markup.table(columns, rows, caption=caption)
