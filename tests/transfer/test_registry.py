"""Push and pull against Debian's `docker-registry`; bytes are counted on the line to it."""

from __future__ import annotations

import base64
import gc
import io
import json
import os

import pytest

from container_kernel.errors import ImageError, RegistryError
from container_kernel.oci.changeset import encode
from container_kernel.oci.digest import Digest
from container_kernel.oci.reference import Reference
from container_kernel.oci.spec import Descriptor, Manifest, MediaType
from container_kernel.store.check import check
from container_kernel.store.store import Store
from container_kernel.transfer.credentials import Wallet
from container_kernel.transfer.load import load
from container_kernel.transfer.pull import pull
from container_kernel.transfer.push import push
from container_kernel.transfer.registry_http import Access, Patience
from tests.few_files import limited, opened, refusal
from tests.kernel.conftest import until
from tests.transfer import servers
from tests.transfer.layouts import ARCHITECTURE, INDEX, MANIFEST, Layout, digest, layer_tar, text

pytestmark = pytest.mark.privileged

PATIENCE = Patience(tries=3, first_pause_s=0.01, longest_pause_s=0.1, silence_s=5)
BASE = layer_tar({"etc/": b"", "etc/motd": b"hello" * 1000})
BIG = layer_tar({"big": os.urandom(3 << 20)})
TOP = layer_tar({"top": os.urandom(40_000)})


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with servers.registry(tmp_path_factory.mktemp("registry") / "blobs") as host:
        yield host


@pytest.fixture
def line(real):
    line = servers.Line(real)
    yield line
    line.close()


@pytest.fixture
def access():
    return Access(patience=PATIENCE)


@pytest.fixture
def other(tmp_path, entered):
    """Another machine's store."""
    store = Store(tmp_path / "other", entered.idmap, userxattr=entered.is_rootless)
    yield store
    store.close()


@pytest.fixture
def name(request, tmp_path):
    """A repository of the test's own."""
    return "".join(c if c.isalnum() else "-" for c in tmp_path.name.lower()).strip("-") + "/x"


def ref(host: str, path: str, tag: str = "1") -> Reference:
    return Reference.parse(f"{host}/{path}:{tag}")


def ours(store, tar: bytes, folder) -> bytes:
    """The same layer as we encode it."""
    scratch = Store(folder / digest(tar)[7:], store.idmap, userxattr=store.userxattr)
    (folder / "layout").mkdir(parents=True, exist_ok=True)
    load(Layout(tar).write(folder / "layout"), scratch)
    (snapshot,) = scratch.snapshots.walk()
    out = io.BytesIO()
    encode(snapshot.path, out.write, idmap=store.idmap, userxattr=store.userxattr)
    scratch.close()
    return out.getvalue()


def built(store, *tars: bytes, folder) -> Digest:
    """An image as it is after a build: layers are trees, no blobs."""
    tars = tuple(ours(store, tar, folder / "scratch") for tar in tars)
    (folder / "image").mkdir()
    ((_, image),) = load(Layout(*tars).write(folder / "image"), store)
    for layer in store.manifest(image).layers:
        store.content.delete(layer.digest)
    return image


def test_what_was_pushed_is_pulled_elsewhere(store, other, real, name, access, tmp_path):
    image = built(store, BASE, TOP, folder=tmp_path / "i")
    pushed = push(image, ref(real, name), store, access)
    pulled = pull(ref(real, name), other, access)
    assert pulled.digest == pushed.digest
    theirs = other.manifest(pulled.digest)
    assert theirs.config.digest == store.manifest(image).config.digest == pushed.image_id
    assert {layer.media_type for layer in theirs.layers} == {MediaType.LAYER_ZSTD}
    config = other.image_config(theirs)
    top = other.snapshots.chain(other.image_chain(config))[-1]
    assert (top.path / "top").stat().st_size == 40_000


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_layers_travel_as_one_likes(store, other, real, name, access, tmp_path, compression):
    image = built(store, BASE, folder=tmp_path / "i")
    pushed = push(image, ref(real, name), store, access, compression=compression)
    pulled = pull(ref(real, name), other, access)
    (layer,) = other.manifest(pulled.digest).layers
    assert layer.media_type.endswith("tar" if compression == "none" else "tar+gzip")
    assert (pushed.digest == image) == (compression == "none")


def test_a_second_push_sends_the_changed_layer_only(store, line, name, access, tmp_path):
    first = built(store, BASE, BIG, folder=tmp_path / "1")
    push(first, ref(line.host, name), store, access)
    assert line.sent > 3 << 20
    line.reset()
    second = built(store, BASE, BIG, TOP, folder=tmp_path / "2")
    pushed = push(second, ref(line.host, name, "2"), store, access)
    assert [part.fate for part in pushed.blobs] == ["there", "there", "sent", "sent"]
    changed = pushed.blobs[2].size
    assert changed < line.sent < changed + (64 << 10)
    line.reset()
    assert push(second, ref(line.host, name, "3"), store, access).sent_bytes == 0
    assert line.sent < 8 << 10


def test_a_push_remembers_packed_layers_without_their_blobs(store, line, name, access, tmp_path):
    image = built(store, BIG, folder=tmp_path / "1")
    first = push(image, ref(line.host, name), store, access)
    for blob in list(store.content.walk()):
        if blob.size > 1 << 20:
            store.content.delete(blob.digest)
    assert push(image, ref(line.host, name, "2"), store, access).digest == first.digest


def test_a_blob_of_another_repository_is_mounted(store, line, name, access, tmp_path):
    image = built(store, BIG, folder=tmp_path / "1")
    push(image, ref(line.host, name), store, access)
    line.reset()
    pushed = push(image, ref(line.host, f"{name}/copy"), store, access)
    assert [part.fate for part in pushed.blobs] == ["mounted", "mounted"]
    assert line.sent < 8 << 10


def test_a_mount_that_is_refused_becomes_an_upload(store, real, name, access, tmp_path):
    image = built(store, TOP, folder=tmp_path / "1")
    pushed = push(image, ref(real, name), store, access)
    (tmp_path / "elsewhere").mkdir()
    for blob in pushed.blobs:
        place = store.home / "packed/at"
        for file in place.rglob(blob.digest.hex):
            file.write_text('{"path": "nobody/has/this"}')
    copy = push(image, ref(real, f"{name}/copy"), store, access)
    assert {part.fate for part in copy.blobs} == {"sent"}


def test_a_second_pull_fetches_the_changed_layer_only(store, other, line, name, access, tmp_path):
    push(built(store, BIG, folder=tmp_path / "1"), ref(line.host, name), store, access)
    two = built(store, BIG, TOP, folder=tmp_path / "2")
    push(two, ref(line.host, name, "2"), store, access)
    pull(ref(line.host, name), other, access)
    line.reset()
    pulled = pull(ref(line.host, name, "2"), other, access)
    assert len(pulled.fetched) == 1
    assert line.received < pulled.fetched_bytes + (16 << 10)
    line.reset()
    again = pull(ref(line.host, name, "2"), other, access)
    assert not again.fetched
    assert line.received < 4 << 10


def test_a_dry_run_says_it_all_and_does_nothing(store, other, real, name, access, tmp_path):
    image = built(store, BASE, TOP, folder=tmp_path / "i")
    before = push(image, ref(real, name), store, access, dry_run=True)
    assert [(part.fate, part.is_packed) for part in before.blobs] == [("sent", False)] * 2
    with pytest.raises(RegistryError, match=r"there is no .*:1"):
        pull(ref(real, name), other, access)
    push(image, ref(real, name), store, access)
    after = push(image, ref(real, name), store, access, dry_run=True)
    assert {part.fate for part in after.blobs} == {"there"}
    would = pull(ref(real, name), other, access, dry_run=True)
    assert len(would.fetched) == 2
    assert not list(other.content.walk())


def test_a_big_layer_goes_in_pieces(store, other, real, name, access, tmp_path, monkeypatch):
    monkeypatch.setattr("container_kernel.transfer.upload.PIECE_BYTES", 1 << 20)
    image = built(store, BIG, folder=tmp_path / "1")
    push(image, ref(real, name), store, access)
    assert pull(ref(real, name), other, access).fetched_bytes > 3 << 20


def test_of_an_index_ours_is_taken(store, other, real, name, access, tmp_path):
    image = built(store, BASE, folder=tmp_path / "1")
    pushed = push(image, ref(real, name), store, access)
    manifest = store.content.read(pushed.digest)
    descriptor = {"mediaType": MANIFEST, "digest": str(pushed.digest), "size": len(manifest)}
    ours = descriptor | {"platform": {"os": "linux", "architecture": ARCHITECTURE}}
    theirs = descriptor | {"platform": {"os": "linux", "architecture": "s390x"}}
    put_manifest(real, name, "many", {"manifests": [theirs, ours]})
    put_manifest(real, name, "foreign", {"manifests": [theirs]})
    assert pull(ref(real, name, "many"), other, access).digest == pushed.digest
    with pytest.raises(ImageError, match="for linux/s390x; this host is linux/"):
        pull(ref(real, name, "foreign"), other, access)


def put_manifest(host: str, path: str, tag: str, fields: dict, media_type: str = INDEX) -> bytes:
    import urllib.request

    data = text({"schemaVersion": 2, "mediaType": media_type, **fields})
    url = f"http://{host}/v2/{path}/manifests/{tag}"
    kind = {"Content-Type": media_type}
    asked = urllib.request.Request(url, data, kind, method="PUT")
    urllib.request.urlopen(asked).close()
    return data


def artifact(store, image: Digest) -> Digest:
    """An SBOM about an image, as a manifest with a subject."""
    empty = store.content.put(b"{}")
    sbom = store.content.put(b'{"packages": []}')
    manifest = Manifest(
        Descriptor("application/vnd.oci.empty.v1+json", empty.digest, empty.size),
        (Descriptor("application/spdx+json", sbom.digest, sbom.size),),
        extra={
            "artifactType": "application/spdx+json",
            "subject": {
                "mediaType": MANIFEST,
                "digest": str(image),
                "size": store.content.size(image),
            },
        },
    )
    return store.content.put(manifest.to_json()).digest


def test_what_is_about_the_image_goes_along(store, other, real, name, access, tmp_path):
    image = built(store, BASE, folder=tmp_path / "1")
    artifact(store, image)
    pushed = push(image, ref(real, name), store, access)
    assert pushed.referrers == 1
    # docker-registry has no referrers API: the list lies under the specification's tag.
    listed = json.loads(
        servers.get(f"http://{real}/v2/{name}/manifests/sha256-{pushed.digest.hex}", Accept=INDEX)
    )["manifests"]
    assert [one["artifactType"] for one in listed] == ["application/spdx+json"]
    pulled = pull(ref(real, name), other, access)
    assert pulled.referrers == 1
    found = Manifest.from_json(other.content.read(Digest(listed[0]["digest"])))
    assert found.extra["subject"]["digest"] == str(pulled.digest)
    assert other.content.read(found.layers[0].digest) == b'{"packages": []}'
    assert push(image, ref(real, name), store, access).referrers == 1


def test_documents_come_back_byte_for_byte(store, other, real, name, access, tmp_path):
    layout = Layout(BASE, compress=True)
    layout.manifest["org.example.unknown"] = {"kept": [1, 2]}
    data = json.dumps(layout.manifest, indent=3).encode()
    layout.index["manifests"] = [layout.add(data, MANIFEST)]
    (tmp_path / "i").mkdir()
    ((_, image),) = load(layout.write(tmp_path / "i"), store)
    assert push(image, ref(real, name), store, access).digest == image
    assert pull(ref(real, name), other, access).digest == image
    assert other.content.read(image) == data


EMPTY_LAYER = bytes(1024)
SUBJECT = {"mediaType": MANIFEST, "digest": digest(b"elsewhere"), "size": 9}
FORMS = {
    "unknown fields everywhere": lambda layout: (
        layout.manifest["config"].update({"org.example.a": None, "annotations": {"a": "b"}}),
        layout.layers[0].update({"org.example.b": [1.0, "é"]}),
        layout.manifest.update({"org.example.c": {"kept": [1, 2]}, "annotations": {"é": "\n"}}),
    ),
    "data beside the digest": lambda layout: layout.manifest["config"].update(
        data=base64.b64encode(text(layout.config)).decode()
    ),
    "a subject": lambda layout: layout.manifest.update(subject=SUBJECT),
    "an artifact type": lambda layout: layout.manifest.update(artifactType="text/x.a"),
    "no media type": lambda layout: layout.manifest.pop("mediaType"),
    "an empty layer, and one twice": lambda layout: None,
}


@pytest.mark.parametrize("form", FORMS)
def test_row_99_a_manifest_of_any_form_comes_back_byte_for_byte(
    store, other, real, name, access, tmp_path, form
):
    layout = Layout(BASE, EMPTY_LAYER, BASE, compress=True)
    FORMS[form](layout)
    data = json.dumps(layout.manifest, indent=3, ensure_ascii=False).encode()
    layout.index["manifests"] = [layout.add(data, MANIFEST)]
    (tmp_path / "i").mkdir()
    ((_, image),) = load(layout.write(tmp_path / "i"), store)
    assert push(image, ref(real, name), store, access).digest == image
    inner = {"mediaType": MANIFEST, "digest": str(image), "size": len(data)}
    nested = put_manifest(real, name, "inner", {"manifests": [inner], "org.example": 1})
    outer = {"mediaType": INDEX, "digest": digest(nested), "size": len(nested)}
    put_manifest(real, name, "outer", {"manifests": [outer]})
    assert pull(ref(real, name, "outer"), other, access).digest == image
    assert other.content.read(image) == data


# ---------------------------------------------------------------- who we are


def docker_login(home, host: str, secret: str = servers.SECRET) -> Wallet:
    auth = base64.b64encode(f"{servers.USER}:{secret}".encode()).decode()
    (home / ".docker").mkdir(parents=True, exist_ok=True)
    file = home / ".docker/config.json"
    file.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    file.chmod(0o600)
    return Wallet({}, home)


def test_tls_and_a_password(store, other, name, tmp_path):
    certificate = servers.make_certificate(tmp_path)
    image = built(store, BASE, folder=tmp_path / "i")
    auth = servers.passwords(tmp_path)
    with servers.registry(tmp_path / "r", tls=certificate, auth=auth) as host:
        certs = tmp_path / "certs.d"
        (certs / host).mkdir(parents=True)
        (certs / host / "ca.crt").write_bytes(certificate.read_bytes())
        unknown = Access(patience=PATIENCE, certificates=(certs,))
        known = Access(
            patience=PATIENCE, certificates=(certs,), wallet=docker_login(tmp_path / "h", host)
        )
        wrong = Access(
            patience=PATIENCE,
            certificates=(certs,),
            wallet=docker_login(tmp_path / "w", host, "wrong"),
        )
        with pytest.raises(RegistryError, match="not trusted"):
            push(image, ref(host, name), store, Access(patience=PATIENCE))
        with pytest.raises(RegistryError, match="wants a name and a password"):
            push(image, ref(host, name), store, unknown)
        with pytest.raises(RegistryError, match="answered 401"):
            push(image, ref(host, name), store, wrong)
        push(image, ref(host, name), store, known)
        assert pull(ref(host, name), other, known).fetched


def test_tokens(store, other, name, tmp_path):
    certificate = servers.make_certificate(tmp_path)
    image = built(store, BASE, TOP, folder=tmp_path / "i")
    with (
        servers.tokens(tmp_path, certificate) as (auth, asked),
        servers.registry(tmp_path / "r", auth=auth) as host,
    ):
        access = Access(patience=PATIENCE, wallet=docker_login(tmp_path / "h", host))
        push(image, ref(host, name), store, access)
        assert asked == [f"repository:{name}:pull,push"]  # one token for the whole push
        assert pull(ref(host, name), other, access).fetched
        with pytest.raises(RegistryError, match="who we are"):
            pull(ref(host, name), other, Access(patience=PATIENCE))


@pytest.mark.parametrize("more", [*range(20), 64])
def test_row_38_with_few_files_a_pull_works_or_says_so(store, real, name, access, tmp_path, more):
    image = built(store, BASE, BIG, TOP, folder=tmp_path / "i")
    push(image, ref(real, name), store, access)
    before = opened()

    def elsewhere() -> Store:
        return Store(tmp_path / "other", store.idmap, userxattr=store.userxattr)

    other = elsewhere()
    with limited() as few_files:
        few_files(more)
        said = refusal(lambda: pull(ref(real, name), other, access))
    other.close()
    assert not said or "open files" in said
    gc.collect()  # an error and its traceback hold each other, and the connection, for a while
    until(lambda: opened() <= before)
    again = elsewhere()
    pull(ref(real, name), again, access)
    assert {found.damage for found in check(again, full=True)} <= {"unreferenced"}
    again.close()
