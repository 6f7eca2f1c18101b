"""A short sample of every long sweep (``./dev soak``), with the seed shown when it fails."""

import pytest

from tests.soak.run import Sweep, module, names

pytestmark = [pytest.mark.privileged, pytest.mark.slow]


@pytest.mark.parametrize("name", [name for name in names() if module(name).SAMPLE])
def test_no_case_of_the_sample_fails(name):
    sweep = Sweep(name, seed=None, is_sample=True)
    if sweep.why_not:
        pytest.skip(sweep.why_not)
    if not sweep.cases:
        pytest.skip("its shortest case is too long for the suite: ./dev soak runs it")
    assert sweep.run()
