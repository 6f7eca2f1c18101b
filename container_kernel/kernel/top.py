"""``%top``: what the containers use, drawn anew until the cell is interrupted.

In a notebook that runs by itself nobody would interrupt it: there it is drawn once.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

from .. import syscalls
from ..display import meters
from ..runtime import meter

if TYPE_CHECKING:
    from .magics import Command
    from .verbs import Context

_FIRST_S = 0.2
"""A percentage needs two looks; the second one is soon."""


def run(command: Command, context: Context) -> None:
    """Show it once, or until interrupted by who looks on."""
    args, gauges = command.args, dict[str, meters.Gauge]()
    interval_s = args["interval"] or 1.0
    display_id, is_update = secrets.token_hex(8), False
    last = _look(context, gauges, None)
    wait_s = _FIRST_S
    while not syscalls.readable([context.cancel.fd], wait_s):
        last = _look(context, gauges, last)
        shown = meters.bundle(gauges.values(), with_data=args["json"])
        context.screen.show(shown, display_id=display_id, is_update=is_update)
        if args["once"] or not gauges or not context.screen.is_watched:
            return
        is_update, wait_s = True, interval_s


def _look(context: Context, gauges: dict[str, meters.Gauge], last: float | None) -> float:
    """Add what each container uses now; forget those that ended."""
    workbench, now = context.workbench, time.monotonic()
    running = {}
    for stage in workbench.stage_names:
        live = workbench.lives.get(stage)
        container = live.container if live is not None else None
        if live is None or container is None or container.poll() is not None:
            continue
        cpus = live.limits.cpus or len(live.limits.cpuset) or os.cpu_count() or 1
        gauge = gauges.get(stage) or meters.Gauge(stage, live.limits, cpus)
        gauge.add(meter.read(container), now - last if last is not None else 0.0)
        running[stage] = gauge
    gauges.clear()
    gauges.update(running)
    return now
