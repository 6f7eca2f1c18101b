"""What docker and buildah make of an exported Dockerfile is the notebook's own tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from container_kernel.build import site
from container_kernel.build.cancel import Cancel
from container_kernel.build.dockerfile import _Writer
from container_kernel.build.recipe import Made
from container_kernel.build.step import Download, Setting, Shell
from container_kernel.errors import CannotExport, UsageError
from container_kernel.kernel.exports import Source, export
from container_kernel.kernel.magics import build_items
from container_kernel.runtime.view import View
from tests.benchmarks import peers
from tests.build.trees import differences

pytestmark = pytest.mark.privileged

SMALL = (
    "%base busybox --as Tools",
    "%%build --name compile --net none\n"
    "# a comment, and lines that a Dockerfile could take for its own\n"
    "mkdir -p /opt/tool && cd /opt/tool\n"
    "cat >run <<'X'\n#!/bin/sh\n  # $HOME\n   echo \"$HOME \\ é\" \\\n  more\n\nX\n"
    "chmod 4755 run; chown 33:34 run; ln -s run soft; touch gone",
    "%%build\nrm /opt/tool/gone; mkdir -p /opt/tool/kept; chmod 700 /opt/tool/kept",
    "%base busybox",
    "%env GREETING='a \"quoted\" $HOME \\ x' PLAIN=1",
    "%label 'made by=some one'",
    "%entrypoint sh -c\n%cmd 'echo $PLAIN'",
    "%copy --from Tools /opt/tool '/usr/lib/the tool'",
    "%copy data /srv/data\n%copy data/a.txt more.txt /srv/more/\n%copy more.txt /srv/data",
    "%workdir /srv/app",
    "%%build\n"
    "mkdir -p /home/app; echo 'app:x:1000:1001::/home/app:/bin/sh' >>/etc/passwd\n"
    "echo 'app:x:1001:' >>/etc/group; chown app:app /home/app\n"
    'printf %s "$GREETING" >greeting; ln greeting link; mkfifo pipe',
    "%user app",
    "%workdir '/srv/new dir'",
    "%%build --cache /tmp/kept\n"
    "cd; id -u >id; id -g >>id; pwd >>id\n"
    "env | grep -v -e HOSTNAME -e '/run/site' -e '_[A-Z]*INDEX' -e HOST "
    "-e proxy -e PROXY -e STRATEGY | sort >env; umask 077; touch mine",
    "%%build\n#!/bin/sh -eu\necho $0 >/home/app/script",
)
LARGE = (
    "%base debian:bookworm --as tools",
    "%%build\nmkdir /opt/tool; echo tool >/opt/tool/run",
    "%base debian:bookworm",
    "%env GREETING=hello",
    "%copy --from tools /opt/tool /usr/local/lib/tool",
    "%apt python3",
    "%pip -r more.txt 'packaging<25'",
    "%workdir /srv/app",
    "%%build\nuseradd -m app; echo $GREETING >greeting",
    "%user app",
    "%pip idna",
    '%%build\npython3 -c \'import packaging, six, os; open(os.environ["HOME"] + "/x", "w")\'',
)


@pytest.fixture
def folder(folder):
    """The notebook's folder, with something to copy."""
    (folder / "data/sub").mkdir(parents=True)
    (folder / "data/a.txt").write_text("a")
    (folder / "data/sub/run").write_text("#!/bin/sh\n")
    (folder / "data/sub/run").chmod(0o750)
    (folder / "data/sub").chmod(0o711)
    (folder / "data/link").symlink_to("sub/run")
    (folder / "more.txt").write_text("six\n")
    return folder


@pytest.fixture
def source(make_bench, folder):
    """What builds cells and gives what an export draws from."""

    def build(*cells, stage=None):
        bench = make_bench()
        for number, cell in enumerate(cells):
            items = build_items(cell) if isinstance(cell, str) else (cell,)
            bench.build(f"cell-{number}", *items)
        return Source(bench.workbench, folder, stage, bench.events.append, Cancel())

    return build


def needs_real_root():
    if os.geteuid() != 0 or "0 4294967295" not in " ".join(
        Path("/proc/self/uid_map").read_text().split()
    ):
        pytest.skip("docker's daemon and buildah's storage need real root here")


def run(*argv):
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


@contextmanager
def built_by_buildah(context, tmp_path, *options):
    """The root folder that buildah makes of a Dockerfile, and the image's config."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    buildah = ("buildah", "--root", tmp_path / "storage", "--runroot", tmp_path / "run")
    try:
        run(
            *(*buildah, "bud", "--signature-policy", tmp_path / "policy.json", "--tag", "out"),
            *("--isolation=oci", "--network=host", "--ulimit=nofile=1024:1024"),
            # crun refuses some cgroup set-ups that runc takes.
            *("--runtime", shutil.which("runc") or "crun", *options, context),
        )
        name = run(*buildah, "from", "--pull-never", "out")
        config = json.loads(run(*buildah, "inspect", "--type=image", "out"))["OCIv1"]["config"]
        yield Path(run(*buildah, "mount", name)), config
    finally:
        run(*buildah, "rm", "--all")


@contextmanager
def built_by_docker(context, tmp_path):
    """The same by docker's BuildKit."""
    (tmp_path / "empty").mkdir()
    try:
        with peers.docker(tmp_path / "empty") as peer:
            run(
                "env",
                "DOCKER_BUILDKIT=1",
                *peer.command,
                "build",
                "--quiet",
                "--network=none",
                "--tag=out",
                context,
            )
            (inspected,) = json.loads(run(*peer.command, "inspect", "out"))
            layers = inspected["GraphDriver"]["Data"]
            lower = ":".join([layers["UpperDir"], layers["LowerDir"]])
            root = tmp_path / "root"
            root.mkdir()
            run("mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", root)
            try:
                yield root, inspected["Config"]
            finally:
                run("umount", root)
    except peers.NotHere as error:
        pytest.skip(str(error))


TOOLS = {"buildah": built_by_buildah, "docker": built_by_docker}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tree_and_the_config_are_the_same(source, tmp_path, tool):
    needs_real_root()
    drawn_from = source(*SMALL)
    bench, image = drawn_from.workbench, drawn_from.image
    context = export(drawn_from, "dockerfile", str(tmp_path / "context"))
    with (
        TOOLS[tool](context, tmp_path) as (theirs, config),
        View(bench.host, bench.store, image.chain_id) as ours,
    ):
        found = differences(ours.path, theirs)
        # The mount point of a cache stays behind, empty.
        assert {path: one for path, (one, _) in found.items()} in ({}, {"/tmp/kept": None})
    ours = image.config
    assert config["Env"] == list(ours.env)
    assert (config["User"], config["WorkingDir"]) == (ours.user, ours.workdir)
    assert (config["Entrypoint"], config["Cmd"]) == (list(ours.entrypoint), list(ours.cmd))
    assert config["Labels"]["made by"] == "some one"


@pytest.mark.slow
@pytest.mark.parametrize("oci_runtime", ["crun"], indirect=True)
def test_packages_are_installed_to_the_same_files(source, tmp_path):
    needs_real_root()
    drawn_from = source(*LARGE)
    bench, image = drawn_from.workbench, drawn_from.image
    context = export(drawn_from, "dockerfile", str(tmp_path / "context"))
    known = site.collect(os.environ, Path.home())
    texts = known.texts("bookworm")
    for path, text in (*texts.items(), *((p, f.read_text()) for p, f in known.binds().items())):
        target = tmp_path / "site" / os.path.relpath(path, site.FOLDER)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    environment = [f"--env={key}={value}" for key, value in known.environment(texts).items()]
    options = (*environment, f"--volume={tmp_path}/site:{site.FOLDER}:ro")
    with (
        built_by_buildah(context, tmp_path, *options) as (theirs, _),
        View(bench.host, bench.store, image.chain_id) as ours,
    ):
        assert differences(ours.path, theirs) == {}


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        (Setting("env", ("A=1\n2",)), "%env"),
        (Setting("label", ("a=1\n2",)), "%label"),
        ("%copy 'what?' /", "%copy what?"),
        ("%copy more.txt '/$HOME'", "%copy more.txt"),
        ("%copy . /srv", "%copy ."),
    ],
)
def test_a_step_without_words_is_refused_by_name(source, folder, cell, named):
    (folder / "what?").write_text("")
    with pytest.raises(CannotExport) as caught:
        export(source("%base busybox", cell), "dockerfile", None)
    assert named in caught.value.message
    assert not (folder / "dockerfile").exists()


def test_what_is_given_from_outside_is_refused():
    step = Shell("true\n", name="inside", secrets=("token",))
    with pytest.raises(CannotExport, match=r"%%build inside .* secrets from outside"):
        _Writer(None)._step(Made(step, None), {})


def test_an_export_is_replaced_and_what_is_not_ours_is_kept(source, folder):
    drawn_from = source("%base busybox", "%copy more.txt /srv/")
    first = export(drawn_from, "dockerfile", None)
    (first / "files/left").write_text("")
    (folder / "more.txt").write_text("other")
    assert export(drawn_from, "dockerfile", None) == first
    assert sorted(path.name for path in first.iterdir()) == [
        *(".container-kernel", "Dockerfile", "base.tar", "files")
    ]
    assert (first / "files/more.txt").read_text() == "other"
    (folder / "mine").mkdir()
    (folder / "mine/file").write_text("")
    with pytest.raises(CannotExport, match="no export wrote it"):
        export(drawn_from, "dockerfile", "mine")
    (folder / "way").symlink_to(first)
    with pytest.raises(CannotExport, match="no export wrote it"):
        export(drawn_from, "dockerfile", "way")
    with pytest.raises(UsageError, match="cannot be written"):
        export(drawn_from, "provenance", "mine")
    assert (folder / "mine/file").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        *("data", "dockerfile", "mine", "more.txt", "way")
    ]


def test_only_the_stages_that_are_needed_are_written(source):
    drawn_from = source(
        "%base busybox --as one",
        "%base busybox --as two",
        "%copy --from one /bin/sh /srv/",
        "%base busybox --as 3",
        "%copy --from two /bin/sh /srv/",
        "%base busybox --as other",
        stage="3",
    )
    text = (export(drawn_from, "dockerfile", None) / "Dockerfile").read_text()
    stages = [line.split()[-1] for line in text.splitlines() if line.startswith("FROM")]
    assert stages == ["base", "one", "two", "stage-3"]


def test_images_of_several_layers_are_one_tar(source, folder):
    made = source("%base busybox", "%%build\nmkdir /x; touch /x/1 /x/2", "%%build\nrm /x/1")
    made.workbench.store.tags.set("made:here", made.image.digest)
    drawn_from = source("%base made:here", "%copy --from made:here /x/2 /", "%copy more.txt /")
    text = (export(drawn_from, "dockerfile", None) / "Dockerfile").read_text()
    assert text.count("FROM scratch") == 1
    assert "COPY --from=base --chown=0:0" in text
    with tarfile.open(folder / "dockerfile/base.tar") as tar:
        assert [name for name in tar.getnames() if name.startswith("x")] == ["x", "x/2"]


def test_a_download_comes_out_of_the_store(source, folder):
    drawn_from = source("%base busybox")
    blob = drawn_from.workbench.store.content.put(b"the file")
    url = "https://example.org/a/%2e%2e?x"
    drawn_from.workbench.build(
        "last",
        "",
        (Download(url, str(blob.digest), "/srv/file"),),
        on_event=drawn_from.on_event,
        cancel=drawn_from.cancel,
    )
    made = export(drawn_from, "dockerfile", None)
    assert 'COPY --chown=0:0 ["downloads/1/download", "/srv/file"]' in (
        (made / "Dockerfile").read_text()
    )
    assert (made / "downloads/1/download").read_bytes() == b"the file"
