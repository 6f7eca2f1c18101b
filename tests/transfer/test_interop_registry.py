"""Through a registry: other tools pull what we pushed, and we pull what they pushed (row F 101)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time

import pytest

from container_kernel.transfer.archive import save
from container_kernel.transfer.load import load
from container_kernel.transfer.pull import pull
from container_kernel.transfer.push import push
from container_kernel.transfer.registry_http import Access
from tests.transfer import servers
from tests.transfer.test_archive import built, other
from tests.transfer.test_interop import id_map, run, tool
from tests.transfer.test_registry import ref

pytestmark = pytest.mark.privileged
__all__ = ["built", "other"]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with servers.registry(tmp_path_factory.mktemp("registry") / "blobs") as host:
        yield host


@pytest.fixture(autouse=True)
def _no_logins(tmp_path, monkeypatch):
    """In a user namespace the tools look for root's own files, and may not read them."""
    (tmp_path / "auth.json").write_text('{"auths": {}}')
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    (tmp_path / "registries.d").mkdir()
    lookaside = f"default-docker:\n  lookaside: file://{tmp_path}/signatures\n"
    (tmp_path / "registries.d/default.yaml").write_text(lookaside)


@pytest.fixture
def skopeo(tmp_path):
    """Skopeo without the host's policy and signatures."""
    options = ["--insecure-policy", f"--registries.d={tmp_path}/registries.d"]
    return lambda *words: run(tool("skopeo"), *options, *words)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_skopeo_sees_what_we_pushed(store, built, real, skopeo, tmp_path, compression):
    pushed = push(built, ref(real, f"s/{compression}"), store, Access(), compression=compression)
    place = f"docker://{real}/s/{compression}:1"
    found = json.loads(skopeo("inspect", "--tls-verify=false", place))
    assert found["Digest"] == str(pushed.digest)
    skopeo("copy", "--src-tls-verify=false", place, f"dir:{tmp_path}/copy")


def test_we_pull_what_skopeo_pushed(store, built, other, real, skopeo, tmp_path):
    save(built, tmp_path / "ours", store=store, ref="made/here:1")
    place = f"docker://{real}/s/theirs:1"
    skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{tmp_path}/ours", place)
    found = json.loads(skopeo("inspect", "--tls-verify=false", place))
    pulled = pull(ref(real, "s/theirs"), other, Access())
    assert str(pulled.digest) == found["Digest"]
    assert other.manifest(pulled.digest).config.digest == store.manifest(built).config.digest


@pytest.fixture
def podman(tmp_path):
    """Podman with a store of its own."""
    tool("podman")
    if os.geteuid() != 0 or "0 4294967295" not in id_map():
        pytest.skip("podman's storage needs real root here")
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with tempfile.TemporaryDirectory(prefix="p-") as short:  # podman takes 50 characters
        places = [f"--root={short}/root", f"--runroot={short}/run", "--storage-driver=vfs"]
        yield lambda *words: run("podman", *places, *words)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_podman_pulls_what_we_pushed(store, built, real, podman, tmp_path, compression):
    push(built, ref(real, f"p/{compression}"), store, Access(), compression=compression)
    policy = f"--signature-policy={tmp_path}/policy.json"
    place = f"{real}/p/{compression}:1"
    image_id = podman("pull", "--quiet", policy, "--tls-verify=false", place).strip()
    assert image_id == store.manifest(built).config.digest.hex


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_podman_loads_and_saves(store, built, other, podman, tmp_path, form):
    save(built, tmp_path / "ours", form, store=store, ref="localhost/made/here:1")
    policy = f"--signature-policy={tmp_path}/policy.json"
    podman("load", "--quiet", policy, "-i", tmp_path / "ours")
    theirs = tmp_path / "theirs"
    podman("save", "--quiet", f"--format={form}", "-o", theirs, "localhost/made/here:1")
    ((name, image),) = load(theirs, other)
    assert name == "localhost/made/here:1"
    assert other.manifest(image).config.digest == store.manifest(built).config.digest


@pytest.fixture
def docker(tmp_path):
    """A docker daemon of the test's own."""
    daemon = shutil.which("dockerd")
    if daemon is None or os.geteuid() != 0 or "0 4294967295" not in id_map():
        pytest.skip("there is no dockerd, or it would need real root")
    socket = f"unix://{tmp_path}/docker.sock"
    places = [f"--data-root={tmp_path}/data", f"--exec-root={tmp_path}/exec"]
    net = ["--iptables=false", "--ip6tables=false", "--bridge=none", f"--pidfile={tmp_path}/pid"]
    options = [*places, *net, "--host", socket, "--storage-driver=vfs"]
    client = ["/usr/bin/docker", "--host", socket]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen([daemon, *options], stdout=log, stderr=log)
    end = time.monotonic() + 30
    while subprocess.run([*client, "version"], capture_output=True).returncode:
        if running.poll() is not None or time.monotonic() > end:
            running.kill()
            running.wait()
            pytest.skip("dockerd does not start here")
    yield lambda *words: run(*client, *words)
    running.terminate()
    running.wait()


def test_docker_loads_and_saves(store, built, other, docker, tmp_path):
    save(built, tmp_path / "ours", "docker-archive", store=store, ref="made/here:1")
    docker("load", "-i", tmp_path / "ours")
    found = docker("image", "inspect", "--format", "{{.Id}}", "made/here:1").strip()
    assert found == str(store.manifest(built).config.digest)
    docker("save", "-o", tmp_path / "theirs", "made/here:1")
    ((name, image),) = load(tmp_path / "theirs", other)
    assert (name, str(other.manifest(image).config.digest)) == ("made/here:1", found)
