"""``./dev bench [NAME…] [--json FILE]``: run the benchmarks, print one table.

NAME picks ``bench_NAME.py``; without one, all run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> int:
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(
            f"no such benchmark: {', '.join(sorted(unknown))} (there are {', '.join(names)})"
        )
    print(f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    results, failed = [], []
    for name in options.names or names:
        print(f"… {name}", file=sys.stderr)
        found = run(name)
        failed += [name] if found is None else []
        results += found or []
        for result in found or []:
            print(line(result), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"results": results}, indent=1) + "\n")
    for name in failed:
        print(f"{name}: did not finish", file=sys.stderr)
    return 1 if failed else 0


def run(name: str) -> list[dict[str, Any]] | None:
    command = [sys.executable, str(HERE / f"bench_{name}.py")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    return list(json.loads(done.stdout.splitlines()[-1])["results"])


def line(result: dict[str, Any]) -> str:
    if result["ratio"] is None:
        return f"{'-':>7} {result['goal']}: {result['note']}"
    low, high = result["interval"]
    verdict = {True: "met", False: "MISSED", None: ""}[result["met"]]
    return (
        f"{result['ratio']:7.3f} [{low:.3f}, {high:.3f}] {result['target']:>8} {verdict:6} "
        f"{result['goal']}: {result['ours']:.4g} against {result['peer']:.4g} ({result['note']})"
    )


if __name__ == "__main__":
    sys.exit(main())
