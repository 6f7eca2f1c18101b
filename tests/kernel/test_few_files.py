"""Row 38: kernels that may open few files work, many of them at once too."""

import pytest

from tests.kernel.conftest import until
from tests.kernel.processes import descendants, descriptors
from tests.kernel.test_life_cycle import ServedKernel

pytestmark = pytest.mark.privileged
BASE = "%base busybox"
CELLS = ("echo hello", "%%run\necho fresh", "%%build --net none\necho step > /step", "cat /step")


@pytest.fixture(scope="module")
def oci_runtime():
    """What runs out is ours: one of them is enough."""
    return "crun"


@pytest.fixture
def open_kernel(tmp_path, home, oci_runtime):
    """Start a kernel, and more of them, that may have so many files open."""
    kernels = []

    def open_kernel(files):
        folder = tmp_path / str(len(kernels))
        folder.mkdir()
        kernels.append(ServedKernel(folder, home, oci_runtime, TEST_FILES=str(files)))
        return kernels[-1]

    yield open_kernel
    for kernel in kernels:
        kernel.close()


def held(kernel):
    """How many files the kernel's own processes have open."""
    return sum(len(descriptors(pid)) for pid in descendants(kernel.supervisor)[:3])


def test_64_files_do_for_a_notebook(open_kernel):
    kernel = open_kernel(64)
    assert [kernel.run(cell)[0]["status"] for cell in (BASE, *CELLS * 2)] == ["ok"] * 9


def test_256_files_are_enough_and_none_is_left_open(open_kernel):
    kernel = open_kernel(256)
    for cell in (BASE, *CELLS):
        assert kernel.run(cell)[0]["status"] == "ok"
    before = held(kernel)
    for number in range(25):
        assert kernel.run(f"%%run\necho {number}")[0]["status"] == "ok"
    until(lambda: held(kernel) <= before)


def test_twenty_kernels_of_64_files_each(open_kernel):
    kernels = [open_kernel(64) for _ in range(20)]
    for kernel in kernels:
        assert kernel.run(BASE)[0]["status"] == "ok"
    assert [kernel.text("echo hello") for kernel in kernels] == ["hello\n"] * 20
