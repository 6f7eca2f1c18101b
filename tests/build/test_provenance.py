"""Provenance says what an image was made of, the same each time, and travels with the image."""

import json
import shutil
import subprocess

import pytest

from container_kernel.build.installed import Package
from container_kernel.build.provenance import _packages, _step
from container_kernel.build.recipe import Made
from container_kernel.build.step import Shell
from container_kernel.errors import CannotExport, ImageError
from container_kernel.kernel.exports import export
from container_kernel.oci.digest import Digest
from container_kernel.oci.spec import Index, Manifest
from container_kernel.runtime.mounts import Wish
from container_kernel.transfer.load import load
from container_kernel.transfer.referrer import attach
from tests.build.test_dockerfile import source
from tests.build.test_installed import FILL

pytestmark = pytest.mark.privileged
__all__ = ["source"]

CELLS = ("%base busybox", f"%%build --name fill\n{FILL}", "%env A=b", "%cmd echo")


def test_a_statement_names_the_image_the_cells_and_what_is_in_it(source):
    drawn_from = source(*CELLS)
    found = json.loads(export(drawn_from, "provenance", None).read_text())
    image, base = drawn_from.image, drawn_from.workbench.base_image("main", drawn_from.cancel)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [{"name": "main", "digest": {"sha256": image.digest.hex}}]
    definition = found["predicate"]["buildDefinition"]
    stage = definition["externalParameters"]["stages"]["main"]
    assert stage["base"] == "busybox"
    assert [step["kind"] for step in stage["steps"]] == ["shell", "setting", "setting"]
    assert stage["steps"][0]["body"].strip() == FILL.strip()
    assert stage["steps"][0]["layer"] == str(image.layers[-1].diff_id)
    first, *packages = definition["resolvedDependencies"]
    assert first == {
        "name": "busybox",
        "uri": f"oci:{base.digest}",
        "digest": {"sha256": base.digest.hex},
    }
    assert {"uri": "pkg:npm/left@1.0.0"} in packages


def test_packages_have_the_digests_of_the_files_they_came_in():
    packages = (
        Package("deb", "jq", "1:1", "amd64", distro=("debian", "bookworm")),
        Package("npm", "left", "1"),
        Package("pypi", "Six_Pack", "1"),
        Package("pypi", "own", "1"),
    )
    hex = Digest.of(b"x").hex
    inputs = [
        {"kind": "deb", "name": "jq", "version": "1:1", "digest": f"sha256:{hex}"},
        {"kind": "python", "name": "six-pack", "version": "1", "digest": f"sha256:{hex}"},
        {"kind": "npm", "name": "left", "version": "1", "digest": "sha512-AAEC"},
        {"kind": "python", "name": "own", "version": "1", "digest": None},
    ]
    found = {one["uri"]: one.get("digest") for one in _packages(packages, inputs)}
    assert found == {
        packages[0].purl: {"sha256": hex},
        packages[1].purl: {"sha512": "000102"},
        packages[2].purl: {"sha256": hex},
        packages[3].purl: None,
    }


def test_a_mount_is_said_as_it_was_written():
    step = Shell("true\n", mounts=(Wish("path", "data", "/data"),))
    assert json.loads(json.dumps(_step(Made(step, None))))["mounts"] == ["data:/data"]


def test_the_same_image_has_the_same_statement(source):
    drawn_from = source(*CELLS)
    first = export(drawn_from, "provenance", "one.json").read_bytes()
    assert export(source(*CELLS), "provenance", "two.json").read_bytes() == first


def test_documents_refer_to_the_image_in_a_layout(source, store):
    drawn_from = source(*CELLS)
    layout = export(drawn_from, "attested", None)
    image, *referrers = Index.from_json((layout / "index.json").read_bytes()).manifests
    assert image.digest == drawn_from.image.digest
    kinds = []
    for descriptor in referrers:
        manifest = Manifest.from_json(blob(layout, descriptor))
        assert manifest.extra["subject"]["digest"] == str(image.digest)
        assert manifest.extra["subject"]["size"] == len(blob(layout, image))
        assert manifest.extra["artifactType"] == descriptor.extra["artifactType"]
        assert blob(layout, manifest.config) == b"{}"
        json.loads(blob(layout, manifest.layers[0]))
        kinds.append(manifest.layers[0].media_type)
    assert kinds == ["application/vnd.in-toto+json", "application/spdx+json"]
    # Whoever wants the image gets the image.
    assert [digest for _, digest in load(layout, store)] == [image.digest]


def blob(layout, descriptor):
    data = (layout / "blobs/sha256" / descriptor.digest.hex).read_bytes()
    assert (Digest.of(data), len(data)) == (descriptor.digest, descriptor.size)
    return data


def test_other_tools_read_the_layout(source, tmp_path):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    drawn_from = source(*CELLS)
    drawn_from.workbench.store.tags.set("made:here", drawn_from.image.digest)
    layout = export(drawn_from, "attested", None)
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{layout}:made:here"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Digest"] == str(drawn_from.image.digest)


def test_a_document_again_changes_nothing_and_needs_its_image(source):
    drawn_from = source(*CELLS)
    layout = export(drawn_from, "attested", None)
    before = (layout / "index.json").read_bytes()
    subject = drawn_from.image.digest
    made = attach(layout, subject, "text/plain", b"x", {})
    once = (layout / "index.json").read_bytes()
    assert once != before
    assert attach(layout, subject, "text/plain", b"x", {}) == made
    assert (layout / "index.json").read_bytes() == once
    with pytest.raises(ImageError, match="does not have the image"):
        attach(layout, Digest.of(b"other"), "text/plain", b"x", {})


def test_repo2docker_gets_its_files(source):
    folder = export(
        source("%base busybox", "%env 'A=it is'", f"%%build --name fill\n{FILL}", "%workdir /srv"),
        *("repo2docker", None),
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".container-kernel", "postBuild", "requirements.txt", "start")
    ]
    started = subprocess.run(
        [folder / "start", "sh", "-c", "echo $A"], capture_output=True, text=True, check=True
    )
    assert started.stdout == "it is\n"
    assert subprocess.run(["bash", "-n", folder / "postBuild"]).returncode == 0


@pytest.mark.parametrize("cell", ["%user 1000", "%cmd x", "%copy more.txt /", "%entrypoint x"])
def test_what_repo2docker_cannot_say_is_refused_by_name(source, folder, cell):
    (folder / "more.txt").write_text("")
    with pytest.raises(CannotExport) as caught:
        export(source("%base busybox", cell), "repo2docker", None)
    assert caught.value.message.startswith(cell)


def test_a_development_container_has_its_dockerfile(source):
    folder = export(source("%base busybox", "%user 1000:1000"), "devcontainer", None)
    assert folder.name == ".devcontainer"
    found = json.loads((folder / "devcontainer.json").read_text())
    assert found["build"]["dockerfile"] == "Dockerfile"
    assert found["remoteUser"] == "1000"
    assert "USER 1000:1000" in (folder / "Dockerfile").read_text()
