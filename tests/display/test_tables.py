import json

import pytest

from container_kernel.build.events import Image, Layer
from container_kernel.build.stages import StageView
from container_kernel.display import images, layers
from container_kernel.display.images import Named
from container_kernel.oci.digest import Digest
from container_kernel.oci.spec import ImageConfig

HOSTILE = "%%build <script>alert(1)</script>\x1b[2J"


def layer(title, size=1000, *, cached=True):
    digest = Digest.of(title.encode())
    return Layer(digest, digest, size, title, 1.23456, cached)


@pytest.fixture
def image():
    config = ImageConfig(
        architecture="amd64", os="linux", env=("A=1",), cmd=("sh",), labels={"a": "<b>"}
    )
    made = (layer("%base busybox", 2_000_000), layer(HOSTILE, 512, cached=False))
    return Image(Digest.of(b"manifest"), Digest.of(b"config"), config, made)


@pytest.fixture
def stages(image):
    return {
        "main": StageView("main", "busybox", image, False),
        "test": StageView("test", "debian:bookworm", None, True),
    }


def test_layers_are_rows_under_the_digest(image):
    lines = layers.of_image(image)["text/plain"].splitlines()
    assert lines[0] == f"image {image.digest} · 2 layers · 2.00 MB"
    assert lines[3].split()[:4] == ["1", "%base", "busybox", "2.00"]


def test_the_same_image_is_the_same_table_built_or_cached(image):
    built = (layer(one.created_by, one.size, cached=False) for one in image.layers)
    again = Image(image.digest, image.image_id, image.config, tuple(built))
    assert layers.of_image(image) == layers.of_image(again)


def test_a_long_title_is_cut_in_text_only(image):
    long = Image(image.digest, image.image_id, image.config, (layer("%apt " + "x" * 200),))
    shown = layers.of_image(long)
    assert max(map(len, shown["text/plain"].splitlines())) < 120
    assert "x" * 200 in shown["text/html"]


def test_a_stage_says_when_it_is_stale_or_not_built(stages, image):
    stale = StageView("main", "busybox", image, True)
    assert "stale" in layers.of_stage(stale)["text/plain"]
    assert layers.bundle(stages, "test")["text/plain"] == (
        "stage test · base debian:bookworm · not built yet"
    )


def test_the_data_is_that_of_every_stage(stages, image):
    data = layers.bundle(stages, "main", with_data=True)["application/json"]
    assert data["current"] == "main"
    assert data["stages"]["test"] == {"digest": None, "layers": []}
    assert data["stages"]["main"]["digest"] == str(image.digest)
    assert data["stages"]["main"]["layers"][0] == {
        "diff_id": str(image.layers[0].diff_id),
        "size": 2_000_000,
        "cached": True,
        "seconds": 1.235,
        "created_by": "%base busybox",
    }


def test_without_data_there_is_none(stages):
    assert set(layers.bundle(stages, "main")) == {"text/plain", "text/html"}


def test_names_are_rows():
    named = [Named("iris:1.0", str(Digest.of(b"x")), 3, 412_345_000)]
    shown = images.listing(named, with_data=True)
    assert shown["text/plain"].splitlines()[1].startswith("iris:1.0  sha256:")
    assert shown["application/json"]["images"][0]["size"] == 412_345_000


def test_no_names_is_a_sentence():
    assert "no image has a name yet" in images.listing([])["text/plain"]


def test_an_inspection_shows_config_and_layers(image):
    shown = images.inspection(image, ["iris:1.0"], with_data=True)
    for fact in ("iris:1.0", "linux/amd64", "A=1", str(image.image_id), "%base busybox"):
        assert fact in shown["text/plain"]
    assert json.dumps(shown["application/json"])


def test_hostile_titles_and_labels_are_text(image):
    for shown in (layers.of_image(image), images.inspection(image)):
        assert "<script" not in shown["text/html"]
        assert "<b>" not in shown["text/html"]
        assert "\x1b" not in shown["text/html"] + shown["text/plain"]
