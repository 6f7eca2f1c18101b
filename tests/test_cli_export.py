"""``export`` and ``sbom`` as their users call them."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.build.test_installed import FILL
from tests.commands import command, write_notebook

pytestmark = pytest.mark.privileged


@pytest.fixture
def env(shared_home, oci_runtime):
    return {
        **os.environ,
        "CONTAINER_KERNEL_HOME": str(shared_home),
        "CONTAINER_KERNEL_RUNTIME": oci_runtime,
    }


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(
        tmp_path / "nb.ipynb", "%base busybox", f"%%build\n{FILL}", "%base busybox --as other"
    )


def test_export_writes_a_folder_and_says_where(env, notebook, tmp_path):
    done = command("export", "requirements", notebook, "--stage", "main", "--json", env=env)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "requirements"
    assert json.loads(done.stdout) == {"format": "requirements", "path": str(path)}
    assert (path / "requirements.txt").read_text().startswith("Six_Pack==1.0")
    done = command("export", "dockerfile", notebook, "-o", "out", cwd=tmp_path, env=env)
    assert done.stdout == f"{tmp_path}/out\n"
    assert (tmp_path / "out/Dockerfile").is_file()


IMAGES = {"oci": "image", "docker-archive": "image.docker.tar", "sqfs": "image.sqfs"}
IMAGES["erofs"] = "image.erofs"


@pytest.mark.parametrize("form", IMAGES)
def test_the_image_of_a_notebook_is_exported_and_runs(env, entered, notebook, tmp_path, form):
    if form == "erofs" and entered.is_rootless:
        done = command("export", form, notebook, "--stage", "main", env=env)
        assert done.returncode == 3
        assert "--format sqfs" in done.stderr
        return
    for _ in range(2 if form == "oci" else 1):  # what an export wrote, the next one replaces
        done = command("export", form, notebook, "--stage", "main", env=env)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path}/{IMAGES[form]}\n"), done.stderr
    if form == "sqfs" and os.geteuid() and not os.access("/dev/fuse", os.W_OK):
        pytest.skip("/dev/fuse is not open to users here")
    image = f"./{IMAGES[form]}"
    done = command("exec", "--image", image, "--", "ls", "/usr/share/doc", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_exported_has_an_exit_code_and_a_hint(env, notebook):
    done = command("export", "dokerfile", notebook, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hint: write dockerfile" in done.stderr
    done = command("export", "dockerfile", notebook, "--stage", "nowhere", env=env)
    assert done.returncode == 1
    assert "no stage called 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr


def test_sbom_prints_a_document_of_a_notebook_or_an_image(env, notebook, tmp_path):
    pytest.importorskip("spdx_tools", reason="the extra `sbom` is not installed")
    done = command("sbom", notebook, "--stage", "main", env=env)
    assert done.returncode == 0, done.stderr
    names = {one["name"] for one in json.loads(done.stdout)["packages"]}
    assert {"jq", "left", "Six_Pack"} < names
    file = tmp_path / "bill.json"
    done = command("sbom", "busybox", "--format", "cyclonedx", "-o", file, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())["metadata"]["component"]["name"] == "busybox"


@pytest.mark.parametrize("oci_runtime", ["crun"], indirect=True)
def test_a_bundle_runs_with_an_empty_store_and_no_network(env, notebook, tmp_path):
    """In a network namespace that has nothing but its own loopback."""
    tools = [shutil.which("unshare"), shutil.which("ip")]
    if not all(tools):
        pytest.skip("unshare and ip make a host without a network; one of them is not installed")
    write_notebook(notebook, "%base busybox", "%%build\necho made >/made", "cat /made")
    built = command("bundle", notebook, "-o", "nb.tar", "--json", cwd=tmp_path, env=env)
    assert built.returncode == 0, built.stderr
    run = f"{sys.executable} -m container_kernel run {tmp_path}/nb.tar -o {tmp_path}/out.ipynb"
    alone = ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {run}"]
    elsewhere = {**env, "CONTAINER_KERNEL_HOME": str(tmp_path / "elsewhere")}
    for _ in range(2):  # opened once, there the second time
        done = subprocess.run(alone, env=elsewhere, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        last = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]
        assert last["outputs"][0]["text"] in ("made\n", ["made\n"])


@pytest.mark.parametrize("oci_runtime", ["crun"], indirect=True)
def test_a_bundle_that_is_none_is_refused(env, tmp_path):
    (tmp_path / "x.tar").write_bytes(b"text")
    done = command("run", tmp_path / "x.tar", env=env | {"CONTAINER_KERNEL_HOME": f"{tmp_path}/h"})
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    done = command("run", tmp_path / "nowhere.tar", env=env)
    assert done.returncode == 2


WRITERS = (
    ["bundle", "nb.ipynb"],
    ["export", "sqfs", "nb.ipynb"],
    ["export", "oci-archive", "nb.ipynb"],
    ["export", "dockerfile", "nb.ipynb"],
    ["image", "save", "busybox"],
    ["image", "save", "busybox", "--format", "sqfs"],
    ["image", "save", "busybox", "--format", "oci"],
    ["sbom", "nb.ipynb"],
    ["sbom", "busybox"],
)


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_what_is_no_file_is_not_replaced_by_an_output(env, tmp_path, words):
    write_notebook(tmp_path / "nb.ipynb", "%base busybox", "%%build --net none\nfalse")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "way").symlink_to("fifo")
    for name in ("fifo", "way"):
        done = command(*words, "-o", name, cwd=tmp_path, env=env)
        assert done.returncode == 2
        said = f"error: {tmp_path}/{name} cannot be written: it is a device, a pipe or a socket\n"
        assert done.stderr.startswith(said)  # before the build, which would fail
    assert (tmp_path / "fifo").is_fifo()
    assert (tmp_path / "way").is_symlink()


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_an_output_in_no_folder_is_refused_before_anything_is_built(env, tmp_path, words):
    write_notebook(tmp_path / "nb.ipynb", "%base busybox", "%%build --net none\nfalse")
    done = command(*words, "-o", "no/x", cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the folder {tmp_path}/no does not exist\n")


FILES = [WRITERS[0], WRITERS[1], WRITERS[2], WRITERS[7], ["export", "provenance", "nb.ipynb"]]


@pytest.mark.parametrize("words", FILES, ids=" ".join)
def test_an_output_is_written_behind_a_link(env, tmp_path, words):
    write_notebook(tmp_path / "nb.ipynb", "%base busybox")
    (tmp_path / "there").mkdir()
    (tmp_path / "way").symlink_to("there/file")
    for _ in range(2):  # at first it leads nowhere
        done = command(*words, "-o", "way", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "way").is_symlink()
        assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]
    assert (tmp_path / "there/file").stat().st_size
