"""What %base takes, besides definitions that come with the package."""

import pytest

from container_kernel.build.step import Base, Shell
from container_kernel.errors import BaseNotFound, CellError
from container_kernel.record import replace
from container_kernel.transfer.archive import save

pytestmark = pytest.mark.privileged


@pytest.fixture
def saved(bench, unique, folder):
    """An image with one file, saved in a format; its path as a notebook would write it."""
    bench.build("a", Shell(f"{unique}\necho saved > /s"))
    image = bench.image()

    def saved(kind, name):
        save(image.digest, folder / name, kind, store=bench.workbench.store, ref="saved:1")
        return f"./{name}"

    return saved


@pytest.mark.parametrize(
    ("kind", "name"),
    [("oci-archive", "image.tar"), ("docker-archive", "docker.tar"), ("oci", "layout")],
)
def test_an_archive_or_layout_is_a_base(bench, saved, kind, name):
    bench.build("b", Base(saved(kind, name), "second"))
    assert bench.output("cat /s", "second") == "saved\n"


def test_an_archive_gives_back_the_same_image(bench, saved):
    bench.build("b", Base(saved("oci-archive", "image.tar"), "second"))
    assert bench.image("second").digest == bench.image("main").digest


def test_an_image_from_elsewhere_is_no_step_of_ours(make_bench, settings, tmp_path, folder):
    """One that tells of our step in its history, on our own base, brings no layer for it."""
    there = make_bench(replace(settings, home=tmp_path / "theirs"))
    there.build("base", Base("busybox"))
    there.build("a", Shell("echo bad > /s", name="fonts"))
    store = there.workbench.store
    save(there.image().digest, folder / "bad.tar", "oci-archive", store=store, ref="busybox")
    bench = make_bench(replace(settings, home=tmp_path / "ours"))
    bench.build("b", Base("./bad.tar", "theirs"))
    bench.build("base", Base("busybox"))
    bench.build("a", Shell("echo good > /s", name="fonts"))
    assert bench.output("cat /s", "main") == "good\n"
    titles = [
        [entry.created_by for entry in bench.image(name).layers] for name in ("theirs", "main")
    ]
    assert titles[0] == titles[1]


@pytest.mark.parametrize("name", ["missing.tar", "missing", "missing.ipynb"])
def test_a_path_that_is_not_there(bench, name):
    with pytest.raises(BaseNotFound, match="relative to the notebook"):
        bench.build("b", Base(f"./{name}"))


def test_a_file_that_is_no_image_is_refused(bench, folder):
    (folder / "bad.tar").write_bytes(b"nothing like a tar" * 100)
    with pytest.raises(Exception, match=r"bad\.tar|archive|tar"):
        bench.build("b", Base("./bad.tar", "second"))
    assert list(bench.workbench.stages) == ["main"]


@pytest.fixture
def own_definitions(tmp_path, settings, make_bench):
    """Write a base definition of the user's own; a workbench that knows it."""
    place = tmp_path / "images"
    place.mkdir()

    def own_definitions(text):
        (place / "mine.toml").write_text(text)
        config = replace(settings, base_folders=(*settings.base_folders, place))
        return make_bench(config)

    return own_definitions


def test_a_definition_of_the_users_own(own_definitions):
    bench = own_definitions('name = "mine"\nkind = "busybox"\nepoch = 86400\n')
    bench.build("base", Base("mine"))
    assert bench.image().config.created == "1970-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "mine.toml"),
        ('kind = "busybox"', "mine.toml"),
        ('name = "mine"\nkind = "magic"', "unknown kind"),
        ('name = "mine"\nkind = "busybox"\nepoch = "now"', "epoch"),
    ],
)
def test_a_definition_that_is_wrong_is_named(own_definitions, text, says):
    bench = own_definitions(text)
    with pytest.raises(CellError, match=says):
        bench.build("base", Base("mine"))


def test_a_definition_that_is_written_anew_is_read_anew(own_definitions, tmp_path):
    bench = own_definitions('name = "mine"\nkind = "busybox"\nepoch = 86400\n')
    bench.build("base", Base("mine"))
    (tmp_path / "images" / "mine.toml").write_text('name = "mine"\nkind = "busybox"\nepoch = 0\n')
    bench.build("base", Base("mine"))
    assert bench.image().config.created == "1970-01-01T00:00:00Z"


def test_a_definition_that_leads_nowhere_is_named(own_definitions, tmp_path):
    bench = own_definitions('name = "mine"\nkind = "busybox"\n')
    (tmp_path / "images" / "other.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CellError, match=r"other\.toml"):
        bench.build("base", Base("mine"))
