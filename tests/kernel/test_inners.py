"""Inner kernels of one kernel, taken up and let go."""

from types import SimpleNamespace

from container_kernel.kernel.inners import Inners


class Launched:
    """A launched inner kernel whose container somebody has ended meanwhile."""

    def __init__(self):
        self.is_forgotten = False

    def forget(self):
        self.is_forgotten = True


def test_what_is_launched_when_the_kernel_ends_is_not_taken_up():
    inners = Inners(SimpleNamespace(), SimpleNamespace())
    inners.close()
    launched = Launched()
    inners._launched("main", launched, None)
    assert launched.is_forgotten
    assert inners.current is None
