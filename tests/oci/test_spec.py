"""Image documents: read strictly, written one way."""

from __future__ import annotations

import json

import pytest

from container_kernel.errors import ImageError
from container_kernel.oci.digest import Digest
from container_kernel.oci.spec import Descriptor, History, ImageConfig, Index, Manifest, MediaType
from container_kernel.record import replace

A, B = Digest.of(b"a"), Digest.of(b"b")
CONFIG = {"mediaType": MediaType.CONFIG, "digest": str(A), "size": 2}
LAYER = {"mediaType": MediaType.LAYER_GZIP, "digest": str(B), "size": 1}
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": MediaType.MANIFEST,
    "config": CONFIG,
    "layers": [LAYER],
}
INDEX = {"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": [CONFIG]}
IMAGE = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["A=1"], "Cmd": ["sh"], "ExposedPorts": {"80/tcp": {}}},
    "rootfs": {"type": "layers", "diff_ids": [str(A), str(A)]},
    "history": [{"created_by": "x", "empty_layer": True, "author": "me"}],
    "variant": "v8",
}


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def test_a_manifest_is_read():
    manifest = Manifest.from_json(text(MANIFEST), media_type=MediaType.MANIFEST)
    assert manifest.config == Descriptor(MediaType.CONFIG, A, 2)
    assert manifest.layers == (Descriptor(MediaType.LAYER_GZIP, B, 1),)


def test_an_image_config_is_read():
    config = ImageConfig.from_json(text(IMAGE))
    assert (config.env, config.cmd, config.entrypoint) == (("A=1",), ("sh",), None)
    assert config.diff_ids == (A, A)
    assert config.history == (History(created_by="x", empty_layer=True, extra={"author": "me"}),)
    assert str(config.platform) == "linux/amd64/v8"


@pytest.mark.parametrize(
    ("kind", "document"),
    [(Manifest, MANIFEST), (Index, INDEX), (ImageConfig, IMAGE)],
    ids=["manifest", "index", "config"],
)
def test_writing_keeps_everything_and_is_stable(kind, document):
    document = document | {"org.example": {"unknown": [1, None, "é"]}}
    written = kind.from_json(text(document)).to_json()
    assert json.loads(written) == document
    assert kind.from_json(written).to_json() == written
    assert b" " not in written.replace(b"created by", b"")


def test_these_bytes_never_change():
    """The digest of every image built here depends on them."""
    config = ImageConfig("amd64", "linux", env=("A=é",), workdir="/w", diff_ids=(A,), cmd=("sh",))
    assert (
        config.to_json()
        == (
            '{"architecture":"amd64","config":{"Cmd":["sh"],"Env":["A=é"],"WorkingDir":"/w"},'
            f'"os":"linux","rootfs":{{"diff_ids":["{A}"],"type":"layers"}}}}'
        ).encode()
    )


def test_dockers_nulls_are_nothing():
    config = IMAGE | {"config": {"Env": None, "Cmd": None, "Labels": None}, "history": None}
    assert ImageConfig.from_json(text(config)).env == ()
    assert ImageConfig.from_json(text(IMAGE | {"config": None})).cmd is None


def test_values_are_changed_by_replacing():
    config = replace(ImageConfig.from_json(text(IMAGE)), user="me")
    assert ImageConfig.from_json(config.to_json()).user == "me"


def with_(document: dict, **fields) -> bytes:
    return text(document | fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"schemaVersion":2,"config":1,"config":2,"layers":[]}', "key twice"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": NaN'), "NaN"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": Infinity'), "Infinity"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": ' + b"9" * 5000), "too large"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": 1e999'), "too large"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": 2.0'), "size is not"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": -1'), "size is not"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": true'), "size is not"),
        (text(MANIFEST).replace(b'"size": 2', b'"size": "2"'), "size is not"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "nested"),
        (b"[" * 100_000, "nested"),
        (b"\xef\xbb\xbf" + text(MANIFEST), "not JSON"),
        (json.dumps(MANIFEST).encode("utf-16"), "not JSON"),
        (with_(MANIFEST, note="\ud800"), "not Unicode"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b" " * (5 << 20), "longer than 4 MiB"),
        (with_(MANIFEST, manifests=[]), "two things"),
        (with_(MANIFEST, fsLayers=[]), "two things"),
        (with_(MANIFEST, Layers=[]), "some programs read as"),
        (with_(MANIFEST, mediaType=MediaType.INDEX), "says it is"),
        (with_(MANIFEST, mediaType=MediaType.DOCKER_MANIFEST), "its descriptor"),
        (with_(MANIFEST, mediaType=1), "mediaType is not a string"),
        (with_(MANIFEST, schemaVersion=1), "schemaVersion"),
        (with_(MANIFEST, schemaVersion="2"), "schemaVersion"),
        (with_(MANIFEST, config=None), "config is not an object"),
        (with_(MANIFEST, layers={}), "layers is not a list"),
        (with_(MANIFEST, layers=[1]), "layer 1 is not an object"),
        (text({"schemaVersion": 2, "config": CONFIG}), "no config or no layers"),
        (with_(MANIFEST, annotations={"a": 1}), "annotations"),
        (with_(MANIFEST, config=CONFIG | {"mediaType": "x"}), "mediaType is not"),
        (with_(MANIFEST, config=CONFIG | {"urls": "x:y"}), "urls is not"),
        (with_(MANIFEST, config=CONFIG | {"data": "?"}), "data is not in base64"),
        (with_(MANIFEST, config=CONFIG | {"data": "e30="}), "data is not what its digest says"),
        *(
            (with_(MANIFEST, config=CONFIG | {"digest": digest}), "not a sha256 digest")
            for digest in (
                "sha256:../../etc/passwd",
                "sha256:" + "A" * 64,
                "sha256:" + "a" * 63,
                "sha256:" + "a" * 65,
                f"sha256:{'a' * 64}\n",
                "md5:" + "a" * 32,
                "sha512:" + "a" * 128,
                "",
                None,
            )
        ),
    ],
)
def test_a_bad_manifest_is_refused(data, message):
    with pytest.raises(ImageError, match=message):
        Manifest.from_json(data, media_type=MediaType.MANIFEST)


@pytest.mark.parametrize(
    "extra", [{"layers": []}, {"config": CONFIG}, {"mediaType": MediaType.MANIFEST}]
)
def test_a_manifest_is_no_index(extra):
    with pytest.raises(ImageError):
        Index.from_json(text(INDEX | extra))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, "architecture is missing"),
        ({"os": ""}, "os is missing"),
        ({"rootfs": None}, "rootfs is not an object"),
        ({"rootfs": {"type": "squashfs", "diff_ids": []}}, "not of type"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "diff_id 1"),
        ({"config": {"Env": "A=1"}}, "Env is not a list"),
        ({"config": {"Env": [1]}}, "Env is not a list of strings"),
        ({"config": {"Env": ["A=\0"]}}, "Env is not a list of strings"),
        ({"config": {"Labels": {"a": 1}}}, "Labels"),
        ({"config": {"env": ["A=1"]}}, "some programs read as"),
        ({"config": {"Env": ["A"]}}, "Env is not a list of NAME=value"),
        ({"config": {"Env": ["=1"]}}, "Env is not a list of NAME=value"),
        ({"config": {"Volumes": ["/data"]}}, "Volumes is not an object"),
        ({"config": {"ExposedPorts": 80}}, "ExposedPorts is not an object"),
        ({"variant": 8}, "variant is not a string"),
        ({"history": [1]}, "history 1 is not an object"),
        ({"history": [{"empty_layer": "no"}]}, "empty_layer"),
    ],
)
def test_a_bad_image_config_is_refused(change, message):
    with pytest.raises(ImageError, match=message):
        ImageConfig.from_json(text(IMAGE | change))
