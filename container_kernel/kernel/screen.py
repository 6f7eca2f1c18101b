"""Screen: where one of our own cells shows what it does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..display.cards import UPDATE_INTERVAL_S, CardBoard

if TYPE_CHECKING:
    from ..build.events import Event
    from .app import App
    from .publisher import Publisher
    from .wire import Dict


class Screen:
    """Where the worker's events and outputs become one cell's displays, in the loop."""

    def __init__(self, app: App, publisher: Publisher | None) -> None:
        self._loop = app.loop
        self._output = publisher.output if publisher else lambda *_: None
        self.is_watched = publisher is not None and publisher.is_watched
        self._board = CardBoard(self._output, time.monotonic)
        self._is_open = True
        self._loop.call_soon(self._tick)

    def on_event(self, event: Event) -> None:
        """A build's event; from the worker."""
        self._loop.call_soon(lambda: self._board.on_event(event))

    def show(
        self,
        data: Dict,
        metadata: Dict | None = None,
        *,
        display_id: str | None = None,
        is_update: bool = False,
    ) -> None:
        """A display, or another picture in place of one; from the worker."""
        transient = {"display_id": display_id} if display_id else {}
        content = {"data": data, "metadata": metadata or {}, "transient": transient}
        kind = "update_display_data" if is_update else "display_data"
        self._loop.call_soon(lambda: self._output(kind, content))

    def stream(self, name: str, text: str) -> None:
        """Text of stdout or stderr; from the worker."""
        content = {"name": name, "text": text}
        self._loop.call_soon(lambda: self._output("stream", content))

    def _tick(self) -> None:
        if self._is_open:
            self._board.tick()
            self._loop.call_later(UPDATE_INTERVAL_S, self._tick)

    def close(self) -> None:
        """No more events come."""
        self._is_open = False
