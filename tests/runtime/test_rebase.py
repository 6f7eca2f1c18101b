"""A layer slides under a running container: what goes on, what is seen, and when it is refused."""

from __future__ import annotations

import os
import time

import pytest

from container_kernel import syscalls
from container_kernel.build.cancel import Cancel
from container_kernel.build.events import Watch
from container_kernel.build.execute import Command, freeze, run_and_freeze
from container_kernel.errors import RebaseRefused
from container_kernel.oci.changeset import Clamp
from container_kernel.record import replace
from container_kernel.runtime.limits import Limits
from container_kernel.runtime.live import Live
from container_kernel.runtime.wish import Wish

pytestmark = pytest.mark.privileged
# A session: it obeys one line after the other, and keeps its variables.
SESSION = """\
mkfifo /work/in
while true; do
    read -r line </work/in || continue
    eval "$line" >/work/out.new 2>&1; echo "[$?]" >>/work/out.new; mv /work/out.new /work/out
done
"""


@pytest.fixture
def layer(place):
    """Freeze the layer that a script makes on top of another."""

    def layer(parent, script):
        made = run_and_freeze(
            place,
            parent,
            Command(script=script),
            title="test",
            epoch=1_000_000_000,
            watch=Watch(lambda text: None, Cancel(), lambda chain_id: None),
        )
        return made.chain_id

    return layer


class Session:
    """A live container with a shell in it that is asked one line at a time."""

    def __init__(self, live, folder, config):
        self.live = live
        self.config = config
        self._folder = folder
        self.container = live.start(["/bin/sh", "-c", SESSION])
        self._until((folder / "in").exists)

    def ask(self, line):
        out = self._folder / "out"
        out.unlink(missing_ok=True)
        (self._folder / "in").write_text(line + "\n")
        self._until(out.exists)
        text, _, status = out.read_text().rpartition("[")
        assert status == "0]\n", (text, status)
        return text.strip()

    def rebase(self, chain, **settings):
        self.live.rebase(chain, replace(self.config, **settings))

    def beside(self, script):
        """Another process started in the same container, as %%sh does."""
        container = self.live.exec(["/bin/sh", "-c", script])
        container.wait()
        with open(container.stdout, closefd=False) as stdout:
            said = stdout.read()
        container.delete()
        return said.strip()

    def _until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            assert self.container.poll() is None
            time.sleep(0.002)


@pytest.fixture
def session(host, shared_store, busybox, tmp_path):
    """A session on busybox with the variable x."""
    folder = tmp_path / "work"
    folder.mkdir()
    wish = Wish(limits=Limits(pids=64))
    live = Live(host, shared_store, busybox.chain_id, busybox.config, folder, wish)
    try:
        session = Session(live, folder, busybox.config)
        session.ask("x=kept")
        yield session
    finally:
        live.close()


def test_the_session_goes_on_and_sees_the_layer(session, layer):
    session.rebase(layer(session.live.chain_id, "echo new > /new"))
    assert session.ask("echo $x; cat /new; pwd") == "kept\nnew\n/work"
    assert session.beside("cat /new; cat /proc/1/comm; pwd") != ""
    assert session.live.read("/new") == "new\n"


def test_nothing_of_the_old_root_is_left(session, layer):
    before = session.ask("cut -d' ' -f5 /proc/self/mountinfo | sort")
    session.rebase(layer(session.live.chain_id, "echo new > /new"))
    assert session.ask("cut -d' ' -f5 /proc/self/mountinfo | sort") == before


def test_it_is_as_isolated_as_before(session, layer):
    look = "cat /proc/self/status | grep -e Cap -e Seccomp -e NoNew; cat /proc/sys/kernel/hostname"
    readonly = "echo x > /proc/sys/kernel/hostname && echo written; ls /.. | sort | head -3"
    before = session.ask(f"{look}; {readonly}; true")
    session.rebase(layer(session.live.chain_id, "true; echo > /etc/here"))
    assert session.ask(f"{look}; {readonly}; true") == before


def test_what_was_written_is_there_and_what_was_removed_is_not(session, layer):
    script = "mkdir -m 777 /srv-all; echo 1 > /srv-all/a; echo > /srv-all/b"
    base = layer(session.live.chain_id, script)
    session.rebase(base)
    session.ask("echo mine > /srv-all/mine; rm /srv-all/a")
    session.rebase(layer(base, "echo 2 > /srv-all/new"))
    assert session.ask("ls /srv-all").split() == ["b", "mine", "new"]
    assert session.ask("cat /srv-all/mine") == "mine"


def test_children_go_along(session, layer):
    session.ask("(while ! cat /new >/work/seen 2>/dev/null; do sleep 0.01; done; sleep 100) & true")
    session.rebase(layer(session.live.chain_id, "echo child > /new"))
    session.ask("until grep -q child /work/seen; do sleep 0.01; done")


def test_twenty_in_a_row_and_freeze_has_all_that_was_written(session, layer, place):
    chain = session.live.chain_id
    for number in range(20):
        session.ask(f"echo {number} > ~/note{number}")
        chain = layer(chain, f"echo {number} > /new{number}")
        session.rebase(chain)
    session.ask("rm ~/note7")
    assert session.ask("cat /new* | wc -l; ls ~/note* | wc -l; echo $x") == "20\n19\nkept"
    frozen = freeze(place.store, session.live.copy_scratch(), "test", Clamp(0, 1_000_000_000))
    assert frozen.parent == chain
    home = frozen.path / session.live.user.home.lstrip("/")
    assert len(list(home.glob("note*"))) == 19
    assert not list(frozen.path.glob("new*"))


def test_a_file_open_for_writing_stays_one_file(session, layer):
    session.ask("exec 5>>~/log; echo before >&5")
    session.rebase(layer(session.live.chain_id, "echo > /new"))
    session.ask("echo after >&5; echo by-name >> ~/log; echo last >&5")
    assert session.ask("cat ~/log").split() == ["before", "after", "by-name", "last"]
    active = session.live.copy_scratch()
    assert "last" in (active.upper / session.live.user.home.lstrip("/") / "log").read_text()
    session.live._store.snapshots.remove(active)


def test_a_replaced_file_that_is_in_use_lives_on(session, layer):
    first = layer(session.live.chain_id, "echo old > /lib-a")
    session.rebase(first)
    session.ask("exec 5</lib-a")
    session.rebase(layer(first, "echo new > /lib-a"))
    assert session.ask("cat /lib-a; cat <&5") == "new\nold"


def test_a_folder_made_in_scratch_does_not_hide_the_layers(session, layer):
    first = layer(session.live.chain_id, "mkdir -m 777 /top")
    session.rebase(first)
    session.ask("mkdir /top/data; echo s > /top/data/scratch")
    session.rebase(layer(first, "mkdir -p /top/data; echo l > /top/data/layer"))
    assert session.ask("ls /top/data").split() == ["layer", "scratch"]


def test_a_folder_emptied_in_scratch_stays_empty(session, layer):
    first = layer(session.live.chain_id, "mkdir -m 777 /top")
    second = layer(first, "mkdir -m 777 /top/data; echo l > /top/data/layer")
    session.rebase(second)
    session.ask("rm -r /top/data; mkdir /top/data; echo s > /top/data/scratch")
    session.rebase(layer(second, "echo > /other"))
    assert session.ask("ls /top/data").split() == ["scratch"]


def test_a_changed_folder_has_another_time(session, layer):
    first = layer(session.live.chain_id, "mkdir -p -m 751 /lib/site; echo > /lib/site/a")
    session.rebase(first)
    chain, seen = first, set()
    for number in range(3):
        seen.add(session.ask("stat -c '%a %u %y' /lib/site"))
        chain = layer(chain, f"echo > /lib/site/b{number}")
        session.rebase(chain)
    assert len(seen) == 3
    assert session.ask("stat -c '%a %u' /lib/site") == "751 0"


REFUSALS = {
    "a folder below the root": ("mkdir -p ~/here; cd ~/here", "sh .*works in the folder .*/here"),
    "a FIFO": ("mkfifo ~/pipe; exec 5<>~/pipe", "sh .*has the FIFO .*/pipe open"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_go_along_is_named_and_the_session_lives(session, layer, what):
    line, why = REFUSALS[what]
    session.ask(line)
    old = session.live.chain_id
    with pytest.raises(RebaseRefused, match=why):
        session.rebase(layer(old, "echo > /new"))
    assert session.live.chain_id == old
    assert session.ask("echo $x; ls /new 2>/dev/null || true") == "kept"


@pytest.mark.parametrize("setting", [{"env": ("A=1",)}, {"user": "7"}, {"workdir": "/tmp"}])
def test_a_setting_that_a_process_has_is_refused(session, layer, setting):
    with pytest.raises(RebaseRefused, match="changed"):
        session.rebase(session.live.chain_id, **setting)


def test_a_setting_that_no_process_has_needs_nothing(session):
    session.rebase(session.live.chain_id, labels={"a": "b"}, cmd=("x",))
    assert session.live.config.cmd == ("x",)
    assert session.ask("echo $x") == "kept"


def test_an_image_that_is_no_extension_is_refused(session, layer, busybox):
    one = layer(busybox.chain_id, "echo 1 > /one")
    session.rebase(one)
    with pytest.raises(RebaseRefused, match="earlier step"):
        session.rebase(layer(busybox.chain_id, "echo 2 > /one"))
    assert session.ask("cat /one") == "1"


@pytest.mark.parametrize("call", ["setns", "move_mount", "pivot_root", "third move"])
def test_a_failure_in_the_middle_changes_nothing(session, layer, monkeypatch, call):
    chain = layer(session.live.chain_id, "echo > /new")
    before = session.ask("cut -d' ' -f5 /proc/self/mountinfo | sort")
    real, calls = syscalls.move_mount, []

    def fail(*_):
        raise OSError(5, "Input/output error", "injected")

    def third(*arguments):
        calls.append(arguments)
        return fail() if len(calls) == 3 else real(*arguments)

    with monkeypatch.context() as patch:
        name = "move_mount" if call == "third move" else call
        patch.setattr(syscalls, name, third if call == "third move" else fail)
        with pytest.raises(RebaseRefused, match="Input/output"):
            session.rebase(chain)
    assert session.ask("echo $x; ls /new 2>/dev/null || true") == "kept"
    assert session.ask("cut -d' ' -f5 /proc/self/mountinfo | sort") == before
    session.rebase(chain)
    assert session.ask("echo $x; ls /new") == "kept\n/new"


def test_scratch_stays_when_nothing_runs(session, layer):
    session.ask("echo mine > ~/mine")
    session.container.kill()
    session.container.wait()
    session.rebase(layer(session.live.chain_id, "echo > /new"))
    container = session.live.start(["/bin/sh", "-c", "cat ~/mine; ls /new"])
    container.wait()
    assert os.read(container.stdout, 100) == b"mine\n/new\n"
