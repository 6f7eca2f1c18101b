"""What this host cannot show, in a virtual machine: systemd, cgroup v2, delegation, AppArmor.

A case is one test file run there, by root or by an ordinary user with a session of systemd. In
software, where there is no KVM, some of them meet their time limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.soak import vm

FILES = [
    f"tests/{name}.py"
    for name in (
        *("runtime/test_cgroup_v2", "runtime/test_labels", "runtime/test_container"),
        *("runtime/test_quiesce", "runtime/test_reaper", "runtime/test_rebase"),
        *("kernel/test_limits", "kernel/test_exhaustion", "kernel/test_top", "kernel/test_idle"),
        *("kernel/test_life_cycle", "runtime/test_isolation"),
    )
]
PLAN = [(file, user) for file in FILES for user in vm.USERS]
CASES, SAMPLE = len(PLAN), 0  # it takes minutes to make and to boot: none of it is in the suite
why_not = vm.why_not


@contextmanager
def opened() -> Iterator[Callable[[int, Random], None]]:
    with vm.Machine.made() as machine:
        machine.take()

        def case(number: int, chance: Random) -> None:
            file, user = PLAN[number]
            # What one user compiles, the other could not replace.
            python = "PYTHONDONTWRITEBYTECODE=1 .venv/bin/python"
            line = f"{python} -m pytest -q -p no:cacheprovider {file}"
            done = machine.run(user, line)
            print(f"{file} as {user}: {done.stdout.splitlines()[-1]}", flush=True)
            assert done.returncode == 0, done.stdout

        yield case
