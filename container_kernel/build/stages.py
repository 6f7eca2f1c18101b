"""Stages: named chains of steps, put together from cells.

A cell is an identity with steps. One that is run again replaces itself in its stage's chain; where
a new one goes is told by the order of the notebook, if that is known, else it goes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import CellError, NoBase
from ..record import field, record, replace
from .events import Image
from .notebook_file import is_by_text
from .progress import Numbered, Progress, Trail
from .step import Base, Copy, Items, Step, Use

Parse = Callable[[str], Items | Use | None]
"""What a cell's text means to someone who only builds; None when that is nothing."""
ALL = "*"
"""In place of a cell's identity: every cell."""


@record(frozen=False)
class Cell:
    """A build cell: who it is, its text, and the steps it stands for."""

    identity: str
    code: str
    steps: tuple[Step, ...]


@record(frozen=False)
class Stage:
    """A base and the cells on it.

    ``progress`` is what ``solved`` was built into (`Stages.wanted` as it was then), ``image`` the
    image made of that, once somebody asked for it.
    """

    name: str
    base: Base
    cells: list[Cell] = field(default_factory=list)
    progress: Progress | None = None
    image: Image | None = None
    solved: object = None
    trail: Trail = field(default_factory=Trail)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """What its cells say, in order."""
        return tuple(step for cell in self.cells for step in cell.steps)

    def position(self, identity: str) -> int | None:
        """Where a cell is in the chain."""
        return next((i for i, cell in enumerate(self.cells) if cell.identity == identity), None)

    def steps(self, until: str | None) -> tuple[list[Numbered], bool]:
        """The steps up to a cell, numbered from 1; and whether these are all."""
        numbered: list[Numbered] = []
        for index, cell in enumerate(self.cells):
            for inner, step in enumerate(cell.steps):
                numbered.append(Numbered(step, f"{cell.identity}/{inner}", len(numbered) + 1))
            if cell.identity == until:
                return numbered, index == len(self.cells) - 1
        return numbered, True

    def place(self, cell: Cell, order: Sequence[str] | None) -> None:
        """Where it was, or last; then all go into the notebook's order, as far as that is known.

        A cell that the notebook does not have (yet) stays behind the one it was behind.
        """
        position = self.position(cell.identity)
        if position is None:
            self.cells.append(cell)
        else:
            self.cells[position] = cell
        if order is None:
            return
        known = {identity: number for number, identity in enumerate(order)}
        ranks = {first.identity: -1 for first in self.cells[:1]}  # it holds the base
        rank = -1
        for other in self.cells[1:]:
            ranks[other.identity] = rank = known.get(other.identity, rank)
        self.cells.sort(key=lambda other: ranks[other.identity])


@record
class StageView:
    """What one stage looks like. ``image`` is None until it was built once."""

    name: str
    base: str
    image: Image | None
    is_stale: bool
    steps: tuple[Step, ...] = ()


class Stages:
    """All stages of one notebook, and which one cells go to. A value with changes: `copy` it to
    be able to go back.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Stage] = {}
        self.current: str | None = None

    def copy(self) -> Stages:
        """A copy that later changes do not reach."""
        other = Stages()
        other.current = self.current
        other.by_name = {
            name: replace(stage, cells=list(stage.cells)) for name, stage in self.by_name.items()
        }
        return other

    def unbuilt(self) -> Stages:
        """The same cells, of which nothing is built."""
        other = Stages()
        other.current = self.current
        other.by_name = {
            name: Stage(name, stage.base, list(stage.cells)) for name, stage in self.by_name.items()
        }
        return other

    def find(self, name: str | None) -> Stage:
        """The stage of that name, or the current one.

        Raises:
            NoBase: there is none yet.
            CellError: there is none of that name.
        """
        wanted = name or self.current
        if wanted is None:
            raise NoBase("there is no image to run this in yet")
        if wanted not in self.by_name:
            raise CellError(
                f"no stage called {wanted!r}",
                hint=f"stages are: {', '.join(self.by_name) or 'none yet'}",
            )
        return self.by_name[wanted]

    def wanted(self, stage: Stage) -> object:
        """What the cells of a stage say, and those of the stages that it takes files from."""
        steps = stage.all_steps
        others = [self.by_name[name] for name in sources(steps) if name in self.by_name]
        return stage.base.reference, steps, [self.wanted(other) for other in others]

    def is_stale(self, stage: Stage) -> bool:
        """True when what is built is not what the cells say."""
        return stage.progress is None or stage.solved != self.wanted(stage)

    def check_order(self, stage: Stage) -> None:
        """Refuse stages that cannot be built one after the other.

        Raises:
            CellError: they take files from each other.
        """
        in_order({one.name: one.all_steps for one in self.by_name.values()}, stage.name)

    def views(self, image_of: Callable[[Stage], Image | None]) -> dict[str, StageView]:
        """What they look like to others, with the images they may know."""
        found = {}
        for name, stage in self.by_name.items():
            image, is_stale = image_of(stage), self.is_stale(stage)
            found[name] = StageView(name, stage.base.reference, image, is_stale, stage.all_steps)
        return found

    def put(self, identity: str, code: str, items: Items, order: Sequence[str] | None) -> Stage:
        """Place a cell; return the stage it belongs to.

        A cell without an id is known by its text, which means it only within one stage: two stages
        may well have the same step.
        """
        base = items[0] if items and isinstance(items[0], Base) else None
        stages = list(self.by_name.values())
        if is_by_text(identity):
            here = base.stage if base else self.current
            stages = [stage for stage in stages if stage.name == here]
        home = next((s for s in stages if s.position(identity) is not None), None)
        cell = Cell(identity, code, tuple(item for item in items if not isinstance(item, Base)))
        if base is None:
            stage = home or self.find(None)
        else:
            if home is None or home.name != base.stage:
                # Another cell starts it: what the stage was before is over. If that is one that
                # started another stage, it has a new name: its cells go along.
                cells: list[Cell] = []
                if home is not None and home.position(identity) == 0:
                    cells = self.by_name.pop(home.name).cells
                self.forget(identity)
                self.by_name[base.stage] = Stage(base.stage, base, cells)
            stage = self.by_name[base.stage]
            stage.base = base
            self.current = stage.name
        stage.place(cell, order)
        return stage

    def read(self, identity: str, code: str, parse: Parse) -> None:
        """Do what a cell's text says, when cells are taken up in the notebook's order.

        Raises:
            CellError: it is wrong.
        """
        items = parse(code)
        if isinstance(items, Use):
            self.current = self.find(items.stage).name
        elif items:
            self.put(identity, code, items, None)

    def put_all(self, cells: Sequence[tuple[str, str]], parse: Parse) -> None:
        """Place the cells of a whole notebook, given as identity and text.

        Raises:
            CellError: one of them is wrong; a note says which.
        """
        for number, (identity, code) in enumerate(cells, start=1):
            try:
                self.read(identity, code, parse)
            except CellError as error:
                error.add_note(f"in code cell {number}: {code.strip().splitlines()[0]}")
                raise

    def forget(self, *identities: str) -> None:
        """Take cells out of whatever chains they are in."""
        for stage in self.by_name.values():
            stage.cells = [cell for cell in stage.cells if cell.identity not in identities]


def sources(steps: Iterable[Step]) -> list[str]:
    """The stages and images that steps take files from."""
    return [step.from_stage for step in steps if isinstance(step, Copy) and step.from_stage]


def in_order(stages: Mapping[str, tuple[Step, ...]], wanted: str) -> list[str]:
    """The stages that ``wanted`` takes files from, those they take from, and it; each before who
    needs it.

    Raises:
        CellError: stages that take from each other.
    """
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise CellError(f"stages that copy from each other: {' → '.join((*above, name))}")
        for source in sources(stages[name]):
            if source in stages:
                visit(source, (*above, name))
        if name not in done:
            done.append(name)

    visit(wanted, ())
    return done
