"""Compare two ways to do one thing, side by side, as a ratio with an interval.

Absolute times on a shared machine say little, and drift; so both sides take turns (A B B A …) and
what counts is the ratio of their medians, or of another quantile. The interval is a bootstrap over
the rounds. A goal is met when the bad end of the interval meets it.

Each ``bench_*.py`` is a program of its own that prints its results as JSON (``report``): what one
leaves behind, a warm cache or an open socket, is not there for the next.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table. ``ours`` and ``peer`` are medians in the unit that ``note`` names."""

    goal: str
    ours: float | None
    peer: float | None
    ratio: float | None
    interval: tuple[float, float] | None
    target: str
    met: bool | None
    note: str = ""


def compare(
    goal: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    *,
    at_most: float,
    rounds: int,
    note: str = "",
) -> Result:
    """Measure both in turns; both return what they took. ``at_most`` is the wanted ours / peer."""
    return judge(goal, take_turns(goal, ours, peer, rounds=rounds), at_most=at_most, note=note)


def take_turns(
    goal: str, ours: Callable[[], float], peer: Callable[[], float], *, rounds: int
) -> list[tuple[float, float]]:
    """What both took, round by round; ``goal`` is for the eyes of who waits."""
    ours(), peer()  # warm both
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        progress(goal, number, rounds)
        if number % 2:
            second = peer()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, peer()))
    progress(goal, rounds, rounds)
    return pairs


def judge(
    goal: str,
    pairs: list[tuple[float, float]],
    *,
    at_most: float,
    quantile: float = 0.5,
    note: str = "",
) -> Result:
    """A goal for one quantile of what was measured; the same samples may serve several goals."""
    ratio, interval = bootstrap(pairs, quantile)
    rounds = len(pairs)
    return Result(
        goal=goal,
        ours=at_quantile([pair[0] for pair in pairs], quantile),
        peer=at_quantile([pair[1] for pair in pairs], quantile),
        ratio=ratio,
        interval=interval,
        target=f"<= {at_most:g}",
        met=interval[1] <= at_most,
        note=f"{note}, {rounds} rounds" if note else f"{rounds} rounds",
    )


def bound(goal: str, values: list[float], *, at_most: float, note: str = "") -> Result:
    """A goal that is a number, not a peer: the peer is that number."""
    ratio, interval = bootstrap([(value, at_most) for value in values])
    return Result(
        goal=goal,
        ours=statistics.median(values),
        peer=at_most,
        ratio=ratio,
        interval=interval,
        target="<= 1",
        met=interval[1] <= 1,
        note=note,
    )


def skipped(goal: str, why: str, *, target: str = "") -> Result:
    """A peer that is not here is said to be not here."""
    nothing = {"ours": None, "peer": None, "ratio": None, "interval": None, "met": None}
    return Result(goal=goal, target=target, note=f"skipped: {why}", **nothing)


def at_quantile(values: list[float], quantile: float) -> float:
    """The value that so large a part of ``values`` does not exceed."""
    if quantile == 0.5:
        return statistics.median(values)
    return sorted(values)[min(len(values) - 1, int(quantile * len(values)))]


def bootstrap(
    pairs: list[tuple[float, float]], quantile: float = 0.5
) -> tuple[float, tuple[float, float]]:
    """The ratio of the two quantiles and its 95 % interval, over resampled rounds."""

    def ratio(sample: list[tuple[float, float]]) -> float:
        mine, theirs = map(list, zip(*sample, strict=True))
        return at_quantile(mine, quantile) / at_quantile(theirs, quantile)

    chance = random.Random(0)
    ratios = sorted(ratio(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    low, high = ratios[int(0.025 * RESAMPLES)], ratios[int(0.975 * RESAMPLES)]
    return ratio(pairs), (low, high)


def progress(goal: str, number: int, rounds: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if number == rounds else ""
        print(f"\r{goal}: {number}/{rounds}", end=end, file=sys.stderr, flush=True)


def report(results: Iterator[Result]) -> None:
    """What a benchmark ends with."""
    print(json.dumps({"results": [asdict(result) for result in results]}))


def program(file: str, *arguments: str) -> list[str]:
    """The command that runs a file of this folder."""
    return [sys.executable, str(Path(file).resolve()), *arguments]
