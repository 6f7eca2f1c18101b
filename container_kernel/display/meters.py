"""Meters: what the running containers use, as a picture that is drawn again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..record import asdict, field, record
from . import amounts, markup
from .markup import Bundle

if TYPE_CHECKING:
    from ..runtime.limits import Limits
    from ..runtime.meter import Use

_KEPT = 60
_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 120, 18


@record(frozen=False)
class Gauge:
    """One container: its last uses. ``cpus`` is how many processors there are for it."""

    name: str
    limits: Limits
    cpus: float
    use: Use | None = None
    percent: float = 0.0
    read_rate: float = 0.0
    write_rate: float = 0.0
    processor: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    memory: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, use: Use, seconds: float) -> None:
        """The next look, ``seconds`` after the one before."""
        before, self.use = self.use, use
        if before is not None and seconds > 0:
            self.percent = max(0.0, 100 * (use.cpu_seconds - before.cpu_seconds) / seconds)
            self.read_rate = max(0.0, (use.read_bytes - before.read_bytes) / seconds)
            self.write_rate = max(0.0, (use.written_bytes - before.written_bytes) / seconds)
            self.processor.append(min(1.0, self.percent / 100 / self.cpus))
        self.memory.append(min(1.0, use.memory_bytes / (self.limits.memory_bytes or 1 << 62)))


def bundle(gauges: Iterable[Gauge], *, with_data: bool = False) -> Bundle:
    """The picture: a row for each container, with the last minute of processor and memory."""
    gauges = [one for one in gauges if one.use is not None]
    shown: Bundle = {"text/plain": _text(gauges), "text/html": _html(gauges)}
    if with_data:
        shown["application/json"] = {"containers": [data(one) for one in gauges]}
    return shown


def data(gauge: Gauge) -> dict[str, Any]:
    """One container for programs."""
    assert gauge.use is not None
    return {
        "stage": gauge.name,
        "cpu_percent": round(gauge.percent, 1),
        "memory_limit_bytes": gauge.limits.memory_bytes,
        "pids_limit": gauge.limits.pids,
        **asdict(gauge.use),
        "pressure": dict(gauge.use.pressure),
    }


_HEAD = ("stage", "cpu", "", "memory", "", "processes", "read", "written", "waits")
_SIDES = "<><><>>><"
_EMPTY = "no container runs; run a cell first"


def _cells(gauge: Gauge) -> tuple[str, str, str, str, str, str]:
    use, limits = gauge.use, gauge.limits
    assert use is not None
    limit = f" / {amounts.size(limits.memory_bytes)}" if limits.memory_bytes else ""
    return (
        f"{gauge.percent:.0f} %",
        f"{amounts.size(use.memory_bytes)}{limit}",
        f"{use.pids}" + (f" / {limits.pids}" if limits.pids else ""),
        f"{amounts.size(int(gauge.read_rate))}/s",
        f"{amounts.size(int(gauge.write_rate))}/s",
        _waits(use.pressure),
    )


def _waits(pressure: Mapping[str, float]) -> str:
    return " ".join(f"{name} {percent:.0f} %" for name, percent in pressure.items())


def _text(gauges: list[Gauge]) -> str:
    if not gauges:
        return _EMPTY
    rows = []
    for one in gauges:
        cpu, memory, pids, came, went, waits = _cells(one)
        rows.append(
            (one.name, cpu, _spark(one.processor), memory, _spark(one.memory), pids, came, went,
             waits)
        )  # fmt: skip
    return markup.columns([_HEAD, *rows], _SIDES)


def _spark(values: Iterable[float]) -> str:
    last = list(values)[-20:]
    return "".join(_BARS[round(value * (len(_BARS) - 1))] for value in last)


def _html(gauges: list[Gauge]) -> str:
    if not gauges:
        return markup.muted(_EMPTY)
    sides = {"<": "left", ">": "right"}
    rows = []
    for one in gauges:
        cpu, memory, pids, came, went, waits = map(markup.text, _cells(one))
        rows.append(
            (markup.code(one.name), cpu, _picture(one.processor, markup.BUSY), memory,
             _picture(one.memory, markup.GOOD), pids, came, went, markup.muted(waits))
        )  # fmt: skip
    columns = [(title, sides[side]) for title, side in zip(_HEAD, _SIDES, strict=True)]
    return markup.table(columns, rows)


def _picture(values: Iterable[float], colour: str) -> str:
    """The last minute as a filled line; what is new is at the right."""
    shown = list(values)
    step = _WIDTH / (_KEPT - 1)
    start = _WIDTH - step * (len(shown) - 1)
    points = " ".join(
        f"{start + step * number:.1f},{_HEIGHT - 1 - value * (_HEIGHT - 2):.1f}"
        for number, value in enumerate(shown)
    )
    area = f"{start:.1f},{_HEIGHT} {points} {_WIDTH},{_HEIGHT}" if shown else ""
    now = f"{100 * shown[-1]:.0f} % of the limit" if shown else ""
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'style="vertical-align:middle;background:{markup.SHADE}"><title>{now}</title>'
        f'<polygon points="{area}" style="fill:{colour};opacity:.25"/>'
        f'<polyline points="{points}" style="fill:none;stroke:{colour};stroke-width:1.2"/></svg>'
    )
