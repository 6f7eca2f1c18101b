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


def test_a_layer_of_npm_is_an_npm_cell_wherever_its_prefix_is(bench):
    bench.build(
        "npm",
        Shell(
            "put() { mkdir -p $1\n"
            'echo "{\\"name\\": \\"$2\\", \\"version\\": \\"$3\\"}" >$1/package.json; }\n'
            "mkdir -p /usr/local/bin; cd /usr/local; top=lib/node_modules\n"
            "put $top/left left 1.0.0; put $top/left/node_modules/in in 3.0.0\n"
            "echo x >$top/left/x\n"
            "put $top/@s/right @s/right 2.0.0; ln -s ../lib/node_modules/left/x bin/left\n"
            "put $top/old left 0.9.0; put /root/.npm-global/lib/node_modules/own own 4.0.0\n"
            "put /opt/app/node_modules/theirs theirs 5.0.0\n",
            net="none",
        ),
    )
    found = proposed(bench)
    assert found.cells[0] == "%npm @s/right@2.0.0 left@1.0.0 old@npm:left@0.9.0 own@4.0.0"
    assert "node_modules/theirs/package.json" in found.cells[1]
    assert found.cells[1].count("cat > ") == 1
    assert "left" not in found.cells[1]
    assert any("/root/.npm-global/lib/node_modules" in remark for remark in found.remarks)
