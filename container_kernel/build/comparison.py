"""Comparison: two builds of one notebook, the first layer in which they differ, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..oci.difference import Difference, Tree, differences
from ..record import record
from ..store.store import Store
from . import resolved, volatile
from .causes import LIMIT_BYTES, Case, Window, cause_of, closest_lines
from .events import Image, Layer
from .journal import Journal

SHOWN = 20
"""How many files are told of in detail."""


@record
class Made:
    """One of the two builds: its images by stage, and the store they are in."""

    images: Mapping[str, Image]
    store: Store
    journal: Journal

    def tree(self, layer: Layer) -> Tree:
        """The files of one of its layers."""
        return Tree(self._path(layer), self.store.idmap, self.store.userxattr)

    def span(self, layer: Layer) -> tuple[int, int]:
        """The seconds since 1970 in which a layer was made."""
        end = (self._path(layer).parent / "layer.json").stat().st_mtime
        return int(end - layer.seconds) - 1, int(end) + 1

    def _path(self, layer: Layer) -> Path:
        return self.store.snapshots.chain(layer.chain_id)[-1].path


@record
class DifferingFile:
    """A file that is not the same in both; ``lines`` show how, where both are text."""

    path: str
    aspects: Mapping[str, tuple[str, str]]
    cause: str | None
    lines: Sequence[str]


@record
class FirstDifference:
    """The first layer that differs. ``inputs`` tells of packages that are others, in words."""

    stage: str
    number: int
    step: str
    diff_ids: tuple[str, str]
    inputs: str
    files: Sequence[DifferingFile]
    count: int

    @property
    def causes(self) -> list[str]:
        """What explains it, most frequent first."""
        if self.inputs:
            return [f"other packages: {self.inputs}"]
        names = [file.cause for file in self.files if file.cause]
        return sorted(set(names), key=lambda name: (-names.count(name), name))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "stage": self.stage,
            "layer": self.number,
            "step": self.step,
            "before": self.diff_ids[0],
            "after": self.diff_ids[1],
            "causes": self.causes,
            "files": [
                {
                    "path": file.path,
                    "differs": {name: list(values) for name, values in file.aspects.items()},
                    "cause": file.cause,
                    "lines": list(file.lines),
                }
                for file in self.files
            ],
            "count": self.count,
        }


def first_difference(before: Made, after: Made) -> FirstDifference | None:
    """Where two builds part; None when they are the same, to the bit."""
    for stage, image in before.images.items():
        other = after.images[stage]
        pairs = zip(image.layers, other.layers, strict=True)
        for number, (old, new) in enumerate(pairs, 1):
            if old.diff_id != new.diff_id:
                return _explained(before, after, (stage, number), (old, new))
    return None


def _explained(
    before: Made, after: Made, where: tuple[str, int], layers: tuple[Layer, Layer]
) -> FirstDifference:
    old, new = layers
    trees = before.tree(old), after.tree(new)
    found = differences(*trees)
    window = Window(before.span(old), after.span(new))
    files = [_file(one, trees, window) for one in found[:SHOWN]]
    inputs = [made.journal.of_layer(layer) or [] for made, layer in ((before, old), (after, new))]
    return FirstDifference(
        *where,
        old.created_by,
        (str(old.diff_id), str(new.diff_id)),
        resolved.drift(*inputs),
        files,
        len(found),
    )


def _file(one: Difference, trees: tuple[Tree, Tree], window: Window) -> DifferingFile:
    contents = [_content(tree.path, one.path) for tree in trees]
    path = f"/{one.path}"
    case = Case(path, frozenset(one.aspects), contents[0], contents[1], window)
    rule = volatile.rule_of(path)
    lines: list[str] = []
    if "content" in one.aspects and contents[0] is not None and contents[1] is not None:
        lines = closest_lines(contents[0], contents[1])
    return DifferingFile(path, one.aspects, rule.name if rule else cause_of(case), lines)


def _content(root: Path, path: str) -> bytes | None:
    """A plain file's bytes, if there are not too many; no link is followed out of the tree."""
    place = root
    for part in path.split("/"):
        place = place / part
        if place.is_symlink():
            return None
    if not place.is_file() or place.stat().st_size > LIMIT_BYTES:
        return None
    return place.read_bytes()
