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


@pytest.mark.parametrize("what", ["missing", "open to all", "a link", "a file", "empty"])
def test_row_46_a_folder_that_is_not_provably_ours_is_not_used(tmp_path, what):
    given = tmp_path / "given"
    if what == "open to all":
        given.mkdir()
        given.chmod(0o777)
    elif what == "a link":
        (tmp_path / "real").mkdir()
        given.symlink_to(tmp_path / "real")
    elif what == "a file":
        given.touch()
    run_folder, lock = run_dir.make({"XDG_RUNTIME_DIR": "" if what == "empty" else str(given)})
    os.close(lock)
    try:
        assert not run_folder.is_relative_to(tmp_path)
        for folder in (run_folder, run_folder.parent):
            found = folder.lstat()
            assert (found.st_uid, found.st_mode & 0o777) == (os.getuid(), 0o700)
    finally:
        run_dir.sweep(run_folder)
