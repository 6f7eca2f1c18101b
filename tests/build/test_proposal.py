"""What a proposal makes of layers that real package managers wrote."""

import pytest

from container_kernel.build.proposal import propose
from container_kernel.build.step import Packages, Shell

pytestmark = [pytest.mark.privileged, pytest.mark.slow]


def proposed(bench):
    workbench = bench.workbench
    return propose(workbench.host, workbench.store, bench.image().chain_id, "lived:1")


def test_a_layer_of_pip_is_a_pip_cell_with_versions_and_nothing_else(debian):
    debian.build("pip", Packages("pip", ("six==1.16.0",)))
    found = proposed(debian)
    assert found.cells == ("%pip six==1.16.0",)
    assert found.unexplained == ()
    assert any("INSTALLER" in remark for remark in found.remarks)


def test_a_layer_of_apt_is_an_apt_cell_and_what_packages_wrote_is_theirs(debian):
    found = proposed(debian)
    (cell,) = found.cells
    # What it needs comes with it: apt marks that as not asked for.
    assert cell.startswith("%apt python3=3.11")
    assert len(cell.split()) == 2
    assert found.unexplained == ()


def test_packages_and_files_of_one_layer_are_told_apart(debian):
    debian.build(
        "both",
        Shell(
            "d=/usr/local/lib/python3.11/dist-packages/mine-2.0.dist-info; mkdir -p $d\n"
            "printf 'Metadata-Version: 2.1\\nName: mine\\nVersion: 2.0\\n' > $d/METADATA\n"
            "printf 'mine.py,,\\n../../../bin/mine,,\\n' > $d/RECORD\n"
            "echo 'x = 1' > $d/../mine.py; echo run > /usr/local/bin/mine\n"
            "echo ours > /etc/ours; rm /etc/debian_version; mkfifo /etc/pipe; rm -r /usr/games\n"
            "mkdir /usr/games; echo play > /usr/games/it\n",
            net="none",
        ),
    )
    found = proposed(debian)
    assert found.cells[0] == "%pip mine==2.0"
    body = found.cells[1].splitlines()
    assert "rm -rf /etc/debian_version" in body
    assert "rm -rf /usr/games" in body
    assert "cat > /etc/ours <<'EOF'" in body
    assert "mine" not in found.cells[1]
    assert found.unexplained == ("/etc/pipe",)
