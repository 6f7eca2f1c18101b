"""Kernel start to the first result, against ipykernel on the host."""

from __future__ import annotations

from collections.abc import Iterator

from kernels import IPYKERNEL, OURS, seconds_to_first_result
from measure import Result, compare, report
from prepared import IPYKERNEL as WITH_IPYKERNEL
from prepared import PYTHON, image

ROUNDS = 15


def results() -> Iterator[Result]:
    """The image is there, so what is timed is the kernel, the container and the kernel in it."""
    for name, tag, at_most in (
        ("ipykernel in the image", image("ipykernel", WITH_IPYKERNEL), 1.25),
        ("agent", image("python", PYTHON), 0.5),
    ):
        yield compare(
            f"kernel start to first result, {name}",
            lambda tag=tag: seconds_to_first_result(*OURS, cells=[f"%base {tag}"]),
            lambda: seconds_to_first_result(*IPYKERNEL),
            at_most=at_most,
            rounds=ROUNDS,
            note="s against ipykernel on the host",
        )


if __name__ == "__main__":
    report(results())
