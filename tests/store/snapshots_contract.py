"""What every snapshotter promises. Subclass it and supply ``snapshots``.

``write`` and ``read`` go through whatever the snapshotter mounts, so a driver that is not an
overlay keeps the same contract.
"""

import pytest

from container_kernel.errors import StoreError
from container_kernel.oci.digest import Digest


def diff_id(text):
    """A made-up but valid name."""
    return Digest.of(text.encode())


class SnapshotterContract:
    """Life and death of snapshots."""

    @pytest.fixture
    def base(self, snapshots, write):
        """A committed snapshot holding one file, ``motd``."""
        active = snapshots.prepare(None)
        write(active, "motd", "hello")
        return snapshots.commit(active, diff_id("base"), 1024, "making base")

    @pytest.fixture
    def child(self, snapshots, base):
        """An active snapshot on ``base``."""
        active = snapshots.prepare(base.chain_id)
        yield active
        snapshots.remove(active)

    def test_a_child_starts_with_its_parents_files(self, child, read):
        assert read(child, "motd") == "hello"

    def test_writing_to_a_child_leaves_the_parent_alone(self, snapshots, base, child, write, read):
        write(child, "motd", "changed")
        sibling = snapshots.prepare(base.chain_id)
        assert read(sibling, "motd") == "hello"
        snapshots.remove(sibling)

    def test_a_committed_snapshot_knows_who_it_is(self, snapshots, base):
        found = snapshots.get(base.chain_id)
        assert (found.diff_id, found.parent, found.size) == (diff_id("base"), None, 1024)
        assert found.created_by == "making base"

    def test_what_was_not_committed_is_not_there(self, snapshots, base, child):
        assert {snapshot.chain_id for snapshot in snapshots.walk()} == {base.chain_id}

    def test_chains_are_listed_base_first(self, snapshots, base, write):
        active = snapshots.prepare(base.chain_id)
        write(active, "more", "x")
        top = snapshots.commit(active, diff_id("top"), 1, "top")
        names = [snapshot.created_by for snapshot in snapshots.chain(top.chain_id)]
        assert names == ["making base", "top"]

    def test_the_second_commit_of_a_chain_keeps_the_first(self, snapshots, base, write, read):
        late = snapshots.prepare(None)
        write(late, "motd", "late")
        assert snapshots.commit(late, diff_id("base"), 1024, "late") == base
        child = snapshots.prepare(base.chain_id)
        assert read(child, "motd") == "hello"
        snapshots.remove(child)

    def test_the_same_layer_on_two_parents_is_two_snapshots(self, snapshots, base):
        on_base = snapshots.commit(snapshots.prepare(base.chain_id), diff_id("same"), 1, "a")
        alone = snapshots.commit(snapshots.prepare(None), diff_id("same"), 1, "b")
        assert on_base.chain_id != alone.chain_id

    def test_a_missing_parent_is_an_error_with_a_way_out(self, snapshots):
        with pytest.raises(StoreError, match="again"):
            snapshots.chain(diff_id("nobody"))

    def test_removing_twice_is_harmless(self, snapshots):
        active = snapshots.prepare(None)
        snapshots.remove(active)
        snapshots.remove(active)

    def test_sweeping_leaves_what_is_in_use(self, snapshots, child, write, read):
        write(child, "mine", "x")
        snapshots.sweep()
        assert read(child, "mine") == "x"
