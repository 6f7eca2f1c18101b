"""Cards: each step of a build as one output that is updated in place.

A card says what the step is, how it stands and what it made; its log folds away when the step is
done. The last state is what the notebook saves, so it says what a reader of the file wants to know
and nothing that is another on each run: not how long it took, nor whether the layer was there
already. Who asks for that finds it in ``%layers --json``, in the terminal and in the times that the
front end records. So a notebook whose steps are all cached is the same file each time it is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import assert_never

from ..build.events import Event, StepFailed, StepFinished, StepLog, StepStarted
from ..record import field, record
from . import amounts, markup
from .failures import LOOK
from .log import Log, as_html, plain
from .markup import Bundle

LIVE_LINES = 8
KEPT_LINES = 100
UPDATE_INTERVAL_S = 0.1

Shown = StepStarted | StepFinished | StepFailed
"""An event that says how a step stands."""

Publish = Callable[[str, dict[str, object]], None]
"""Takes a message type (``display_data``, ``update_display_data``) and its content."""


@record(frozen=False)
class Card:
    """How one step stands."""

    event: Shown
    display_id: str
    started: float = 0.0
    log: Log = field(default_factory=Log)
    shown: float | None = None
    is_dirty: bool = True


class CardBoard:
    """Turns a build's events into displays. Call it from one thread.

    Updates of one card come at most every tenth of a second; what is held back is shown by the
    next event, by ``tick``, or with the card's last state, which is never held back.
    """

    def __init__(self, publish: Publish, clock: Callable[[], float]) -> None:
        self._publish = publish
        self._clock = clock
        self._cards: dict[str, Card] = {}
        self._prefix = os.urandom(8).hex()
        self._count = 0

    def on_event(self, event: Event) -> None:
        """Show what an event changes."""
        match event:
            case StepLog():
                if card := self._cards.get(event.step_id):
                    card.log.write(event.text)
                    card.is_dirty = True
                    self._show(card)
            case StepStarted():
                card = self._new(event)
                self._cards[event.step_id] = card
                self._show(card)
            case StepFinished() | StepFailed():
                card = self._cards.pop(event.step_id, None) or self._new(event)
                card.event = event
                self._show(card, at_once=True)
            case _:
                assert_never(event)

    def tick(self) -> None:
        """Show what was held back, and the time that passed; call it now and then."""
        now = self._clock()
        for card in self._cards.values():
            due = int(now - card.started) != int((card.shown or now) - card.started)
            card.is_dirty = card.is_dirty or due
            self._show(card)

    def _new(self, event: Shown) -> Card:
        self._count += 1
        return Card(event, f"{self._prefix}-{self._count}", started=self._clock())

    def _show(self, card: Card, *, at_once: bool = False) -> None:
        now = self._clock()
        is_early = card.shown is not None and now - card.shown < UPDATE_INTERVAL_S
        if not at_once and (is_early or not card.is_dirty):
            return
        kind = "display_data" if card.shown is None else "update_display_data"
        card.shown, card.is_dirty = now, False
        content: dict[str, object] = {
            "data": bundle(card.event, card.log, now - card.started),
            "metadata": {},
            "transient": {"display_id": card.display_id},
        }
        self._publish(kind, content)


def bundle(event: Shown, log: Log, elapsed: float = 0.0) -> Bundle:
    """The card of a step as ``text/plain`` and ``text/html``."""
    return {
        "text/plain": _plain(event, log, elapsed),
        "text/html": _html(event, log, _notes(event, elapsed)),
    }


def line(event: Shown, elapsed: float = 0.0) -> str:
    """The card in one line of text."""
    sign = {StepStarted: "…", StepFinished: "✓", StepFailed: "✗"}[type(event)]
    return " ".join(
        [sign, place(event), _title(event), *(f"· {n}" for n in _notes(event, elapsed))]
    )


def cost(event: Shown) -> str:
    """What a step took, for those who watch: it is in no card, as it differs from run to run."""
    match event:
        case StepFailed():
            return amounts.seconds(event.seconds) if event.seconds >= 0.001 else ""
        case StepFinished() if event.layer:
            return "cached" if event.cached else amounts.seconds(event.seconds)
    return ""


def place(event: Shown) -> str:
    """Where the step is in its stage.

    How many there will be depends on which cells were run by then, and is of interest only until
    the step is done: a card that stays is to stay the same.
    """
    stage = "" if event.stage == "main" else f"{event.stage} "
    if event.number == 0:
        return f"[{stage}base]"
    total = f"/{event.total}" if isinstance(event, StepStarted) else ""
    return f"[{stage}{event.number}{total}]"


def _title(event: Shown) -> str:
    return plain(event.title.replace("\n", " "))


def _notes(event: Shown, elapsed: float) -> list[str]:
    """What stands after the title, in order."""
    match event:
        case StepStarted():
            return ["running" + (f" {int(elapsed)} s" if elapsed >= 1 else "")]
        case StepFailed():
            code = "" if event.exit_code is None else f", exit code {event.exit_code}"
            return ["interrupted, nothing frozen" if event.interrupted else f"failed{code}"]
        case StepFinished(layer=None):
            return ["set"]
        case StepFinished():
            assert event.layer
            return [event.layer.diff_id.short, amounts.size(event.layer.size)]


def _plain(event: Shown, log: Log, elapsed: float) -> str:
    # What a failed step printed last is in the error that follows the card.
    tail = log.last(LIVE_LINES) if isinstance(event, StepStarted) else ()
    look = [f"    {LOOK}"] if _can_look(event) else []
    return "\n".join([line(event, elapsed), *(f"    {plain(text)}" for text in tail), *look])


def _can_look(event: Shown) -> bool:
    return isinstance(event, StepFailed) and event.is_kept


def _html(event: Shown, log: Log, notes: list[str]) -> str:
    colour = {StepStarted: markup.BUSY, StepFinished: markup.GOOD, StepFailed: markup.BAD}[
        type(event)
    ]
    look = f"<div>{markup.muted(markup.text(LOOK))}</div>" if _can_look(event) else ""
    return (
        f'<div style="border-left:3px solid {colour};padding:.15em 0 .15em .75em;margin:0;'
        f'font-size:{markup.SIZE};line-height:1.6">'
        f"{_head(event, notes, colour)}{_log(event, log)}{look}</div>"
    )


def _head(event: Shown, notes: list[str], colour: str) -> str:
    title = markup.text(_title(event))
    bits = [markup.text(note) for note in notes]
    if isinstance(event, StepFinished) and event.layer:
        bits[0] = markup.code(notes[0], tip=f"diff_id {event.layer.diff_id}")
    if not isinstance(event, StepFinished):
        bits[0] = f'<span style="color:{colour}">{bits[0]}</span>'
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:0 .7em;align-items:baseline">'
        f'<span style="color:{colour};flex:none">{_mark(event)}</span>'
        f"{markup.muted(markup.text(place(event)[1:-1]))}"
        f'<code style="{markup.CODE_STYLE};{_ONE_LINE}" title="{title}">{title}</code>'
        f'<span style="color:{markup.MUTED};white-space:nowrap">'
        f"{' &middot; '.join(bits)}</span></div>"
    )


_ONE_LINE = "flex:1 1 0;min-width:14em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
_SPINNER = (
    '<svg width="11" height="11" viewBox="0 0 12 12"><circle cx="6" cy="6" r="4.7" fill="none" '
    'stroke="currentColor" stroke-width="2" stroke-dasharray="20 10"><animateTransform '
    'attributeName="transform" type="rotate" from="0 6 6" to="360 6 6" dur="1s" '
    'repeatCount="indefinite"/></circle></svg>'
)


def _mark(event: Shown) -> str:
    return {StepStarted: _SPINNER, StepFinished: "&#10003;", StepFailed: "&#10007;"}[type(event)]


def _log(event: Shown, log: Log) -> str:
    if isinstance(event, StepStarted):
        return _pre(log.last(LIVE_LINES), 0)
    if not log.total:
        return ""
    count = f"{log.total} line" + ("s" if log.total > 1 else "")
    summary = f'<summary style="cursor:pointer;color:{markup.MUTED}">log, {count}</summary>'
    lines = log.lines[-KEPT_LINES:]
    return f"<details>{summary}{_pre(lines, log.total - len(lines))}</details>"


def _pre(lines: tuple[str, ...], left_out: int) -> str:
    if not lines:
        return ""
    text = "\n".join(as_html(line) for line in lines)
    if left_out:
        text = markup.muted(f"({left_out} lines before these)") + "\n" + text
    return markup.pre(text)
