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


def test_a_cell_does_not_run_where_the_image_has_changed_since_that_was_started():
    """A build cell ended while the kernel for the image before it was still being started."""
    asked = []
    inners = Inners(SimpleNamespace(), SimpleNamespace(submit=lambda job, done: asked.append(job)))
    inners.prepare(lambda: "the image before")
    inners.is_stale = True  # as a build cell leaves it
    ran = []
    inners.when_ready(ran.append, lambda: "the image after", ran.append)
    inners.current = SimpleNamespace(is_ready=True)
    inners._is_preparing = False  # it was launched
    inners.run_waiting()
    assert ran == []
    assert [job() for job in asked] == ["the image before", "the image after"]
