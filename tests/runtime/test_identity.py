"""Who a process is, by files that an image may fill with anything."""

import os

import pytest

from container_kernel.errors import CellError
from container_kernel.runtime.identity import check_directory, read_file, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\nada:x:1815:1852:,,,:/home/ada:/bin/sh\nbroken line\n"
GROUP = "root:x:0:\nusers:x:100:ada\nwheel:x:10:ada,bob\n"


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups"),
    [
        ("", 0, 0, ()),
        ("root", 0, 0, ()),
        ("ada", 1815, 1852, (100, 10)),
        ("1815", 1815, 1852, (100, 10)),
        ("ada:users", 1815, 100, ()),
        ("ada:7", 1815, 7, ()),
        ("4711", 4711, 0, ()),
        ("4711:10", 4711, 10, ()),
    ],
)
def test_users_are_found_by_name_and_number(text, uid, gid, groups):
    user = resolve_user(PASSWD, GROUP, text)
    assert (user.uid, user.gid, user.groups) == (uid, gid, groups)


@pytest.mark.parametrize(
    "text", ["nobody", "-1", "0x0", "2147483648", "4294967296", "ada:nogroup", "root\n", "１"]
)
def test_what_is_no_user_is_an_error_and_never_root(text):
    with pytest.raises(CellError):
        resolve_user(PASSWD, GROUP, text)


@pytest.fixture
def root(tmp_path):
    """A hostile image's root folder."""
    (tmp_path / "srv").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "out").symlink_to("/proc/self/fd/3")
    (tmp_path / "host").symlink_to("/etc")
    (tmp_path / "up").symlink_to("../../../../srv")
    (tmp_path / "proc").mkdir()
    (tmp_path / "link-to-proc").symlink_to("proc")
    os.mkfifo(tmp_path / "etc/passwd")
    (tmp_path / "etc/shadow").symlink_to("/etc/shadow")
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(("path", "inside"), [("/srv", "/srv"), ("/up", "/srv"), ("/host", "/etc")])
def test_links_are_followed_inside(root, path, inside):
    assert check_directory(root, path) == inside


@pytest.mark.parametrize(
    "path", ["/out", "/proc", "/link-to-proc", "/proc/self/fd/3", "/missing", "/etc/passwd"]
)
def test_no_process_starts_in_a_place_of_the_host_kernel(root, path):
    with pytest.raises(CellError):
        check_directory(root, path)


def test_a_fifo_or_a_link_out_is_no_file(root):
    assert read_file(root, "/etc/passwd") is None
    assert read_file(root, "/etc/shadow") is None
