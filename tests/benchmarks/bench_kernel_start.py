"""Kernel start to the first result, against ipykernel on the host."""

from __future__ import annotations

from collections.abc import Iterator

from kernels import IPYKERNEL, OURS, seconds_to_first_result
from measure import Result, compare, report
from prepared import IPYKERNEL as WITH_IPYKERNEL
from prepared import PYTHON, built

ROUNDS = 15


def results() -> Iterator[Result]:
    """A notebook that was used before is opened again: its image is there, its session is not."""
    for name, notebook, at_most in (
        ("ipykernel in the image", built("ipykernel", WITH_IPYKERNEL), 1.25),
        ("agent", built("python", PYTHON), 0.5),
    ):
        yield compare(
            f"kernel start to first result, {name}",
            lambda notebook=notebook: seconds_to_first_result(*OURS, notebook=notebook),
            lambda: seconds_to_first_result(*IPYKERNEL),
            at_most=at_most,
            rounds=ROUNDS,
            note="s against ipykernel on the host",
        )


if __name__ == "__main__":
    report(results())
