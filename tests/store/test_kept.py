"""A tree that is kept is bounded, shared by whoever holds it, and gone with the last of them."""

import pytest

from container_kernel.oci.digest import Digest
from container_kernel.store import kept
from container_kernel.store.kept import Kept

pytestmark = pytest.mark.privileged
PARENT = Digest.of(b"parent")


def write(store, text="half"):
    active = store.snapshots.prepare(PARENT)
    (active.upper / "file").write_text(text)
    return active


def test_a_tree_larger_than_what_it_leaves_free_is_not_kept(store, monkeypatch):
    monkeypatch.setattr(kept, "_free", lambda path: 4095)
    active = write(store, "x" * 4096)
    assert not store.kept.keep(active, {})
    assert store.kept.tree is None
    store.snapshots.remove(active)


def test_the_last_one_is_kept(store):
    first, second = write(store), write(store)
    assert store.kept.keep(first, {})
    assert store.kept.keep(second, {})
    assert not first.path.exists()
    assert store.kept.tree.upper == second.upper


def test_whoever_holds_it_has_it_until_they_let_go(store):
    active = write(store)
    assert store.kept.keep(active, {"of": "me"})
    other = Kept(store.snapshots)
    assert other.borrow(lambda about: about["of"] == "you") is None
    tree = other.borrow(lambda about: about["of"] == "me")
    store.kept.let_go()
    assert (tree.upper / "file").read_text() == "half"
    other.let_go()
    assert not active.path.exists()


def test_what_is_being_written_is_not_lent(store):
    active = write(store)
    (active.path / "kept.json").write_text("{}")
    assert Kept(store.snapshots).borrow(lambda about: True) is None
    store.snapshots.remove(active)


def test_it_is_found_by_no_name_of_a_layer(store):
    assert store.kept.keep(write(store), {})
    assert store.snapshots.walk() == []
