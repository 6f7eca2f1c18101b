"""A bundle brings a notebook, what its cells read, and its images; a hostile one brings nothing."""

import io
import json
import tarfile

import pytest

from container_kernel.build import bundle
from container_kernel.build.cancel import Cancel
from container_kernel.errors import CannotExport, ContainerKernelError, ImageError
from container_kernel.kernel.exports import Source
from container_kernel.kernel.magics import build_items
from container_kernel.record import replace
from container_kernel.store.store import Store
from tests.commands import write_notebook

pytestmark = pytest.mark.privileged

CELLS = (
    "%base busybox --as tools",
    "%%build\nmkdir /opt; echo tool >/opt/tool",
    "%base made:here",
    "%copy --from tools /opt /opt",
    "%copy data more.txt /srv/",
)


@pytest.fixture
def folder(folder):
    (folder / "data/sub").mkdir(parents=True)
    (folder / "data/sub/run").write_text("run")
    (folder / "data/sub/run").chmod(0o750)
    (folder / "data/sub").chmod(0o711)
    (folder / "data/link").symlink_to("sub/run")
    (folder / "more.txt").write_text("more")
    return folder


@pytest.fixture
def written(make_bench, folder, tmp_path):
    """A bundle, and the images that went in."""
    bench = make_bench()
    bench.build("made", *build_items("%base busybox"))
    bench.tag("made:here")
    return write(make_bench(), folder, tmp_path / "nb.tar", *CELLS)


def write(bench, folder, path, *cells):
    notebook = write_notebook(folder / "nb.ipynb", *cells)
    for number, cell in enumerate(cells):
        bench.build(f"cell-{number}", *build_items(cell))
    workbench = bench.workbench
    place = bundle.Place(
        notebook, workbench.store, workbench.ledger.journal, workbench.config.base_folders
    )
    source = Source(workbench, folder, None, bench.events.append, Cancel())
    bundle.write(source.stages, place, path)
    return path, {name: bench.image(name).digest for name in workbench.stages}


@pytest.fixture
def own_store(tmp_path, entered):
    store = Store(tmp_path / "own", entered.idmap, userxattr=entered.is_rootless)
    yield store
    store.close()


def tree(folder):
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


def test_the_folder_and_the_images_are_the_same(
    written, folder, own_store, tmp_path, make_bench, settings
):
    path, digests = written
    (tmp_path / "out").mkdir()
    notebook = bundle.unpack(path, tmp_path / "out", own_store)
    assert notebook == tmp_path / "out/nb.ipynb"
    assert tree(tmp_path / "out") == tree(folder)
    # Nothing of it is built again: every step is answered by what came.
    bench = make_bench(replace(settings, home=own_store.home))
    for number, cell in enumerate(CELLS):
        bench.build(f"cell-{number}", *build_items(cell))
    assert {name: bench.image(name).digest for name in ("tools", "main")} == digests
    layers = [event.layer for event in bench.events if getattr(event, "layer", None)]
    assert layers
    assert all(layer.cached for layer in layers)


def test_the_same_notebook_gives_the_same_bundle(written, make_bench, folder, tmp_path):
    again, _ = write(make_bench(), folder, tmp_path / "again.tar", *CELLS)
    assert again.read_bytes() == written[0].read_bytes()


def test_a_base_that_is_a_notebook_is_refused_by_name(make_bench, folder, tmp_path):
    write_notebook(folder / "base.ipynb", "%base busybox")
    with pytest.raises(CannotExport, match="it is a notebook"):
        write(make_bench(), folder, tmp_path / "out.tar", "%base ./base.ipynb")
    assert not (tmp_path / "out.tar").exists()


def changed(path, target, change):
    """The bundle with another ``bundle.json``."""
    with tarfile.open(path) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = old.extractfile(member).read()
            if member.name == "bundle.json":
                contents = json.loads(data)
                change(contents)
                data = json.dumps(contents).encode()
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


def renamed(name):
    def change(contents):
        contents["entries"][0][0] = name

    return change


def leading_out(contents):
    contents["entries"] = [["way", 0o120777, "/tmp"], ["way/nb.ipynb", 0o100644, None]]


HOSTILE = {
    "up": renamed("../nb.ipynb"),
    "absolute": renamed("/tmp/nb.ipynb"),
    "odd": renamed("a/./b"),
    "no name": renamed(""),
    "number": renamed(5),
    "through a link": leading_out,
    "newer": lambda contents: contents.update(version=99),
    "no version": lambda contents: contents.pop("version"),
    "no steps": lambda contents: contents.pop("steps"),
    "foreign layer": lambda contents: contents["bases"].update(x="sha256:" + "0" * 64),
    "no digest": lambda contents: contents["tags"].update(x="latest"),
    "notebook elsewhere": lambda contents: contents.update(notebook="/etc/passwd"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_bundle_is_refused_and_writes_nowhere_else(written, own_store, tmp_path, change):
    path = changed(written[0], tmp_path / "bad.tar", change)
    (tmp_path / "in/out").mkdir(parents=True)
    with pytest.raises(ImageError):
        bundle.unpack(path, tmp_path / "in/out", own_store)
    assert [one.name for one in (tmp_path / "in").iterdir()] == ["out"]


def test_what_is_cut_off_or_no_bundle_is_refused(written, own_store, tmp_path):
    whole = written[0].read_bytes()
    (tmp_path / "out").mkdir()
    for number, data in enumerate((whole[:512], whole[: len(whole) // 2], b"", b"text")):
        (tmp_path / f"{number}.tar").write_bytes(data)
        with pytest.raises(ContainerKernelError):
            bundle.unpack(tmp_path / f"{number}.tar", tmp_path / "out", own_store)
