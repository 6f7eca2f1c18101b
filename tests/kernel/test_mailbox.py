import os
import socket
import stat

import pytest

from container_kernel.kernel.mailbox import Mailbox


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "ipc"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def mailbox(folder):
    box = Mailbox(folder, "/inside")
    yield box
    box.close()


def own(mailbox, folder, name):
    return folder / mailbox.inside(name).rpartition("/")[2]


def test_files_are_for_their_owner_only(mailbox, folder):
    assert mailbox.write("a", b"secret").startswith("/inside/")
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_that_is_there_already_is_written_to(mailbox, folder, tmp_path):
    target = tmp_path / "elsewhere"
    own(mailbox, folder, "a").symlink_to(target)
    with pytest.raises(FileExistsError):
        mailbox.write("a", b"x")
    assert not target.exists()


def test_fifo_is_open_for_good(mailbox, folder):
    fd = mailbox.fifo("events")
    try:
        own(mailbox, folder, "events").unlink()
        os.write(fd, b"x")
        assert os.read(fd, 9) == b"x"
    finally:
        os.close(fd)


def test_socket_is_found_once_it_is_there(mailbox, folder):
    assert mailbox.socket("s") is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(own(mailbox, folder, "s")))
        fd = mailbox.socket("s")
        assert stat.S_ISSOCK(os.fstat(fd).st_mode)
        os.close(fd)


@pytest.mark.parametrize("kind", ["link", "file", "fifo", "folder"])
def test_what_is_no_socket_is_refused(mailbox, folder, tmp_path, kind):
    path = own(mailbox, folder, "s")
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(tmp_path / "host.sock"))
        match kind:
            case "link":
                path.symlink_to(tmp_path / "host.sock")
            case "file":
                path.write_text("")
            case "fifo":
                os.mkfifo(path)
            case _:
                path.mkdir()
        with pytest.raises(OSError, match="no socket"):
            mailbox.socket("s")


def test_a_socket_replaced_later_changes_nothing(mailbox, folder, tmp_path):
    path = own(mailbox, folder, "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen()
        fd = mailbox.socket("s")
        path.unlink()
        path.symlink_to(tmp_path / "host.sock")
        client.connect(f"/proc/self/fd/{fd}")
        server.accept()[0].close()
        os.close(fd)


def test_close_takes_away_what_this_start_put_there(folder):
    box = Mailbox(folder, "/inside")
    box.write("a", b"")
    (folder / "others").write_text("")
    box.close()
    assert [entry.name for entry in folder.iterdir()] == ["others"]


def test_what_is_taken_is_gone(mailbox, folder):
    file = own(mailbox, folder, "value")
    file.write_bytes(b"text")
    assert mailbox.take("value", 10) == b"text"
    assert not file.exists()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "large", "nothing"])
def test_only_a_file_of_the_container_is_taken(mailbox, folder, tmp_path, kind):
    path = own(mailbox, folder, "value")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    make = {
        "link": lambda: path.symlink_to(secret),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "large": lambda: path.write_bytes(b"x" * 11),
        "nothing": lambda: None,
    }
    make[kind]()
    with pytest.raises(OSError, match=r".+"):
        mailbox.take("value", 10)
