"""Small files of a store are there whole, or as they were, and a disk that refuses is told of."""

import pytest

from container_kernel.errors import StoreError
from container_kernel.store.small_files import write_whole


@pytest.mark.parametrize("obstacle", ["folder", "target"])
def test_a_disk_that_refuses_is_an_error_with_a_way_out_and_leaves_nothing(tmp_path, obstacle):
    path = tmp_path / "history" / "n.json"
    if obstacle == "folder":
        path.parent.write_text("no folder")
    else:
        path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot write") as caught:
        write_whole(path, "{}")
    assert "CONTAINER_KERNEL_HOME" in caught.value.hint
    assert not list(tmp_path.rglob(".*"))


def test_the_last_text_stays(tmp_path):
    path = tmp_path / "journal" / "k.json"
    for text in ("old", "new"):
        write_whole(path, text)
    assert path.read_text() == "new"
    assert [found.name for found in path.parent.iterdir()] == ["k.json"]
