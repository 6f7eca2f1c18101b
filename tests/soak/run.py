"""``./dev soak [NAME…]``: the long sweeps, each with a seed, each resumable.

NAME picks ``sweep_NAME.py``; without one, all run. A sweep is so many cases; each draws from a
chance of its own, made of the seed and its number, so that one can be repeated alone. A sweep that
was stopped goes on where it left off.

A sweep is a module with

- ``CASES``, how many there are, and ``SAMPLE``, how many of them the test suite runs, if any;
- ``opened()``, a context manager around a row of cases that yields ``case(number, chance)``, which
  raises for a failure. After one, it is opened again;
- if it cannot run everywhere, ``why_not()``, which says why it cannot here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
STATES = HERE.parents[1] / "build" / "soak"
MOST_FAILURES = 10
PROGRESS_S = 10.0


class Sweep:
    """One module's cases: which are done, and which failed."""

    def __init__(self, name: str, *, seed: int | None, is_sample: bool) -> None:
        self.name = name
        self.module = module(name)
        self.is_sample = is_sample
        self.cases = self.module.SAMPLE if is_sample else self.module.CASES
        self._file = STATES / f"{name}.json"
        state = {} if is_sample or seed is not None else self._read()
        self.seed: int = state.get("seed", random.SystemRandom().getrandbits(32))
        self.seed = self.seed if seed is None else seed
        self.done: int = state.get("done", 0)
        self.failed: list[int] = state.get("failed", [])

    @property
    def why_not(self) -> str:
        """Why it cannot run here; nothing if it can."""
        return getattr(self.module, "why_not", str)()

    def _read(self) -> dict:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def _write(self) -> None:
        if not self.is_sample:
            STATES.mkdir(parents=True, exist_ok=True)
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps({k: getattr(self, k) for k in ("seed", "done", "failed")}))
            os.replace(new, self._file)

    def run(self) -> bool:
        """Run the cases that are left; True when none failed."""
        if self.why_not:
            print(f"{self.name}: skipped, {self.why_not}")
            return True
        print(f"{self.name}: seed {self.seed}, cases {self.done} to {self.cases}", flush=True)
        start, first = time.monotonic(), self.done
        while self.done < self.cases and len(self.failed) < MOST_FAILURES:
            try:
                self._run_until_failure()
            except Exception:
                traceback.print_exc()
                self._note_failure()
        seconds = time.monotonic() - start
        told = f"{self.done - first} cases in {seconds:.0f} s, {len(self.failed)} failed"
        print(f"{self.name}: {told}: {self.failed}" if self.failed else f"{self.name}: {told}")
        self._file.unlink(missing_ok=True)
        return not self.failed

    def _run_until_failure(self) -> None:
        shown = time.monotonic()
        with self.module.opened() as case:
            while self.done < self.cases:
                case(self.done, chance(self.seed, self.done))
                self.done += 1
                self._write()
                if time.monotonic() > shown + PROGRESS_S:
                    shown = time.monotonic()
                    print(f"{self.name}: {self.done}/{self.cases}", flush=True)

    def _note_failure(self) -> None:
        again = f"./dev soak {self.name} --seed {self.seed} --only {self.done}"
        print(f"{self.name}: case {self.done} failed; again: {again}", flush=True)
        self.failed.append(self.done)
        self.done += 1
        self._write()

    def run_only(self, number: int) -> bool:
        """Run one case, whose exception is shown as it is."""
        with self.module.opened() as case:
            case(number, chance(self.seed, number))
        return True


def chance(seed: int, number: int) -> random.Random:
    """What one case draws from."""
    return random.Random(f"{seed}/{number}")


def names() -> list[str]:
    """All sweeps."""
    found = (path.stem.removeprefix("sweep_") for path in HERE.glob("sweep_*.py"))
    return sorted(name.replace("_", "-") for name in found)


def module(name: str) -> ModuleType:
    """The module of a sweep."""
    return importlib.import_module(f"tests.soak.sweep_{name.replace('-', '_')}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--seed", type=int, help="begin with this seed, not where it left off")
    parser.add_argument("--only", type=int, metavar="CASE", help="only the case of this number")
    parser.add_argument("--sample", action="store_true", help="as few cases as the test suite runs")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names()):
        parser.error(f"no sweep {', '.join(sorted(unknown))} (there are {', '.join(names())})")
    if options.only is not None and (options.seed is None or len(options.names) != 1):
        parser.error("--only needs a --seed and one NAME")
    if options.list:
        for name in names():
            found = module(name)
            print(f"{name:<16} {found.CASES:>7} cases  {(found.__doc__ or '').splitlines()[0]}")
        return 0
    found = [
        Sweep(name, seed=options.seed, is_sample=options.sample)
        for name in options.names or names()
    ]
    if options.only is not None:
        return 0 if found[0].run_only(options.only) else 1
    failed = [sweep.name for sweep in found if not sweep.run()]
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
