"""Execute round trip through the relay, against ipykernel directly."""

from __future__ import annotations

from collections.abc import Iterator

from kernels import IPYKERNEL, OURS, Kernel
from measure import Result, compare, report
from prepared import IPYKERNEL as WITH_IPYKERNEL
from prepared import image

ROUNDS = 300


def results() -> Iterator[Result]:
    tag = image("ipykernel", WITH_IPYKERNEL)
    with Kernel(*OURS) as ours, Kernel(*IPYKERNEL) as direct:
        ours.execute(f"%base {tag}")
        yield compare(
            "execute round trip through the relay",
            lambda: ours.execute("pass"),
            lambda: direct.execute("pass"),
            at_most=1.15,
            rounds=ROUNDS,
            note="s against ipykernel on the host",
        )


if __name__ == "__main__":
    report(results())
