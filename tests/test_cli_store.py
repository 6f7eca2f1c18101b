"""``container-kernel store`` as its users call it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import command, write_notebook
from tests.store.whole import Whole, flip, wait_for_a_tick

pytestmark = pytest.mark.privileged


@pytest.fixture
def whole(tmp_path, entered):
    """A store with all kinds of things in it."""
    whole = Whole(tmp_path / "home", entered)
    whole.store.close()
    wait_for_a_tick()
    return whole


@pytest.fixture
def cli(whole, settings):
    """The command, on that store."""
    env = {**settings.environ, "CONTAINER_KERNEL_HOME": str(whole.home)}
    return lambda *words: command(*words, env=env)


@pytest.fixture(scope="session")
def oci_runtime():
    """No container runs here: one of them is enough."""
    return "crun"


def test_a_whole_store_is_exit_code_0(cli):
    done = cli("store", "check", "--full")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no damage\n", "")


def test_damage_is_exit_code_4_until_it_is_mended(cli, whole):
    """Exit code 4 stays as long as something must be built or loaded again."""
    flip(whole.foreign.path / "imported")
    done = cli("store", "check", "--full")
    assert done.returncode == 4
    assert f"content-changed   layer {whole.foreign.chain_id.short}: /imported" in done.stdout
    assert "needed by: image three:1" in done.stdout
    assert done.stderr.startswith("hint: container-kernel store check --repair")
    done = cli("store", "check", "--full", "--repair")
    assert done.returncode == 0
    assert "repaired: moved to quarantine/" in done.stdout
    assert "unpacked again from the blob it came in" in done.stderr
    flip(whole.base.path / "motd")
    assert cli("store", "check", "--full", "--repair").returncode == 4
    whole.open()
    whole.rebuild()
    whole.store.close()
    assert cli("store", "check", "--full").returncode == 0


def test_findings_are_data(cli, whole):
    (whole.home / "content").chmod(0o755)
    done = cli("store", "check", "--json")
    said = json.loads(done.stdout)
    assert said["ok"] is False
    (found,) = said["findings"]
    assert (found["damage"], found["weight"], found["path"]) == (
        "open-to-others",
        "damage",
        "content",
    )
    said = json.loads(cli("store", "check", "--repair", "--json").stdout)
    assert (said["ok"], said["findings"][0]["repaired"]) == (True, "closed")


def test_a_database_that_was_rebuilt_is_told_once(cli, whole):
    (whole.home / "index.db").write_bytes(b"no database")
    done = cli("image", "list", "--json")
    assert len(json.loads(done.stdout)["images"]) == 3
    assert "database was damaged and has been rebuilt" in done.stderr
    assert cli("image", "list", "--json").stderr == ""


def test_a_damaged_image_hides_no_other(cli, whole):
    whole.store.content.path(whole.one).write_bytes(b"{}")
    done = cli("image", "list", "--json")
    assert done.returncode == 0
    layers = {one["name"]: one["layers"] for one in json.loads(done.stdout)["images"]}
    assert layers == {"one:1": None, "three:1": 1, "two:1": 1}
    assert "damaged" in cli("image", "list").stdout


@pytest.mark.parametrize("by", ["+10y", "-10y"])
def test_row_12_where_the_clock_is_ten_years_off_all_is_cached_and_whole(settings, tmp_path, by):
    """Also what is built then; and of what is named or cached, nothing is too old to stay."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    path = write_notebook(tmp_path / "n.ipynb", "%base busybox", "%%build --net none\ntouch /a")
    home = {**settings.environ, "CONTAINER_KERNEL_HOME": str(tmp_path / "home")}
    other = {**home, "LD_PRELOAD": str(library), "FAKETIME": by}
    before = json.loads(command("build", path, "--json", env=home).stdout)["stages"]["main"]
    after = json.loads(command("build", path, "--json", env=other).stdout)["stages"]["main"]
    assert after["digest"] == before["digest"]
    assert all(layer["cached"] for layer in after["layers"])
    assert command("store", "collect", "--json", env=other).returncode == 0
    write_notebook(path, "%base busybox", "%%build --net none\ntouch /b")
    then = json.loads(command("build", path, "--json", env=other).stdout)["stages"]["main"]
    now = json.loads(command("build", path, "--json", env=home).stdout)["stages"]["main"]
    assert (now["digest"], now["layers"][1]["cached"]) == (then["digest"], True)
    assert command("store", "check", "--full", env=home).returncode == 0


def test_collect_says_what_and_why(cli, whole):
    assert cli("image", "rm", "three:1").returncode == 0
    dry = cli("store", "collect", "--dry-run")
    assert "nothing refers to it" in dry.stdout
    assert "would free" in dry.stdout
    said = json.loads(cli("store", "collect", "--json").stdout)
    assert said["freed_bytes"] > 0
    assert {one["kind"] for one in said["removed"]} == {"blob", "layer"}
    assert "freed 0 B" in cli("store", "collect").stdout
    said = json.loads(cli("store", "collect", "--max-bytes", "1", "--json").stdout)
    assert {one["name"] for one in said["removed"]} == set()  # names keep the rest


def test_du_shares_the_bytes_out(cli, whole):
    said = json.loads(cli("store", "du", "--json").stdout)
    assert {name for image in said["images"] for name in image["names"]} > {"one:1", "two:1"}
    assert said["total_bytes"] == said["named_bytes"] + said["working_bytes"]
    assert "unique" in cli("store", "du").stdout


def test_a_newer_database_is_refused(cli, whole):
    with closing(sqlite3.connect(whole.home / "index.db")) as db:
        db.execute("PRAGMA user_version=99")
    done = cli("store", "check")
    assert done.returncode == 4
    assert "newer version" in done.stderr
