"""Run folders: what dead processes left is swept, what living ones have is not."""

import os

import pytest

from container_kernel.runtime import run_dir


@pytest.fixture
def environ(tmp_path):
    """A user's own runtime folder."""
    tmp_path.chmod(0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


def test_a_folder_is_there_while_its_lock_is_held(environ):
    mine, lock = run_dir.make(environ)
    other, other_lock = run_dir.make(environ)
    assert mine.is_dir()
    os.close(lock)
    third, third_lock = run_dir.make(environ)
    assert sorted(mine.parent.iterdir()) == sorted([other, third])
    os.close(other_lock)
    os.close(third_lock)


def test_one_that_was_never_finished_is_swept_when_it_is_old(environ):
    mine, lock = run_dir.make(environ)
    young, old = mine.parent / ".new-1-young", mine.parent / ".new-2-old"
    for folder in (young, old):
        (folder / "inner").mkdir(parents=True)
    os.utime(old, (0, 0))
    run_dir.sweep_all(mine.parent)
    assert sorted(mine.parent.iterdir()) == sorted([mine, young])
    os.close(lock)
