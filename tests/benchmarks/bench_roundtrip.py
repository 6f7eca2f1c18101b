"""Execute round trip through the relay, against ipykernel directly."""

from __future__ import annotations

from collections.abc import Iterator

from kernels import IPYKERNEL, OURS, Kernel
from measure import Result, judge, report, take_turns
from prepared import IPYKERNEL as WITH_IPYKERNEL
from prepared import image

ROUNDS = 1000


def results() -> Iterator[Result]:
    tag = image("ipykernel", WITH_IPYKERNEL)
    with Kernel(*OURS) as ours, Kernel(*IPYKERNEL) as direct:
        ours.execute(f"%base {tag}")
        goal = "execute round trip through the relay"
        pairs = take_turns(
            goal, lambda: ours.execute("pass"), lambda: direct.execute("pass"), rounds=ROUNDS
        )
        for quantile, at_most in ((0.5, 1.15), (0.95, 1.25)):
            yield judge(
                f"{goal}, p{quantile * 100:.0f}",
                pairs,
                at_most=at_most,
                quantile=quantile,
                note="s against ipykernel on the host",
            )


if __name__ == "__main__":
    report(results())
