import pytest

from container_kernel.errors import BadArguments, CellError
from container_kernel.kernel import images
from container_kernel.kernel.images import full_name
from container_kernel.oci.spec import ImageConfig


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("iris", "iris:latest"),
        ("iris:1.0", "iris:1.0"),
        ("lab/iris_data.set:A", "lab/iris_data.set:A"),
        ("localhost:5000/iris", "localhost:5000/iris:latest"),
    ],
)
def test_a_name_has_a_tag(name, full):
    assert full_name(name) == full


@pytest.mark.parametrize("name", ["", "Iris", "a b", "-x", "a:", ":a", "a::b", "a/", "../a", "a\n"])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(BadArguments, match="cannot be the name"):
        full_name(name)


@pytest.fixture
def digest(store):
    return store.put_image(ImageConfig(architecture="amd64", os="linux"), ())


def test_a_tagged_image_is_found_by_name_and_digest(store, digest):
    assert images.tag(store, digest, "iris") == "iris:latest"
    for reference in ("iris", "iris:latest", str(digest), digest.hex[:8]):
        assert images.find(store, reference) == digest
    assert images.names_of(store, digest) == ["iris:latest"]


def test_an_unknown_image_is_refused_with_what_is_near(store, digest):
    images.tag(store, digest, "iris")
    with pytest.raises(CellError, match="is it iris:latest"):
        images.find(store, "irsi:latest")


def test_removing_is_all_or_nothing(store, digest):
    images.tag(store, digest, "iris")
    with pytest.raises(CellError, match="no image is called 'rose'"):
        images.remove(store, ["iris", "rose"])
    assert images.remove(store, ["iris"]) == ["iris:latest"]
    assert images.names_of(store, digest) == []
