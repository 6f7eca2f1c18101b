"""System calls that Python has no name for, where they are more than a name."""

import os
import subprocess
import sys

import pytest

from container_kernel import syscalls

RENAMING = """
import os, sys
a, b = sys.argv[1:]
while True:
    os.rename(a, b)
    os.rename(b, a)
"""


@pytest.fixture
def root(tmp_path):
    """A folder with a link that leads up, as a descriptor."""
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib/os-release").write_text("ID=some\n")
    (tmp_path / "etc/os-release").symlink_to("../usr/lib/os-release")
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.fixture
def renaming(tmp_path):
    """Somebody else who renames things elsewhere, all the time."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in "ab":
        (elsewhere / name).mkdir()
    argv = [sys.executable, "-c", RENAMING, elsewhere / "a/x", elsewhere / "b/x"]
    (elsewhere / "a/x").mkdir()
    with subprocess.Popen(argv) as process:
        yield
        process.kill()


def test_a_file_is_found_while_others_rename(root, renaming):
    for _ in range(20_000):
        os.close(syscalls.open_in_root(root, "/etc/os-release", os.O_RDONLY))


def test_no_link_leads_out(root, tmp_path):
    (tmp_path / "out").symlink_to("/../../../../../../../../../etc/passwd")
    with pytest.raises(FileNotFoundError):
        syscalls.open_in_root(root, "out", os.O_RDONLY)
