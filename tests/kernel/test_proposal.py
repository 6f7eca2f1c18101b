"""``%freeze`` proposes the cells that would have made the layer: these are run, and compared."""

from __future__ import annotations

import re

import pytest

from tests.kernel.test_real import RealKernel

pytestmark = pytest.mark.privileged
LIVED = r"""
cd ~; mkdir -p conf/empty .cache/x; printf 'a = 1\n  $HOME `id` EOF\nEOF\n' > conf/'app it'\''s.ini'
printf 'no newline' > conf/bare; head -c 5000 /dev/urandom > model.bin; chmod 750 conf/empty
ln -s conf link; echo c > .cache/x/y; echo 'x=1' > .ash_history; chmod 600 conf/*.ini
"""
FILES = r"""
cd ~; find . ! -path './.cache*' ! -name .ash_history | sort | while read -r name
do stat -c '%A %u:%g %n' "$name"; test -f "$name" && sha256sum < "$name"; readlink "$name"
done
"""


@pytest.fixture
def kernel(tmp_path, tmp_path_factory, oci_runtime):
    kernel = RealKernel(tmp_path, tmp_path_factory.mktemp("home"), oci_runtime)
    assert kernel.run("%base busybox")[0]["status"] == "ok"
    yield kernel
    kernel.close()


def proposed(said):
    """The cells in what ``%freeze`` shows, each until a blank line before its notes."""
    body = re.split(r"\n\n(?:Left out|No cell|%copy takes)", said)[0]
    return re.split(r"\n\n(?=%)", body)[1:]


def test_the_proposed_cells_make_the_same_files(kernel):
    assert kernel.run(LIVED)[0]["status"] == "ok"
    said = kernel.text("%freeze lived:1")
    lived = kernel.text(f"%%run --image lived:1\n{FILES}")
    assert "conf/app it's.ini" in lived
    cells = proposed(said)
    assert len(cells) == 2, said
    for cell in cells:
        assert kernel.run(cell)[0]["status"] == "ok", cell
    assert kernel.text(f"%%run\n{FILES}") == lived
    # What was left out is named, with the reason.
    assert re.search(r"Left out, caches.*: \S+/\.cache/x/y", said)
    assert re.search(r"Left out, what programs keep of a session: \S+/\.ash_history", said)
    assert ".cache" not in "".join(cells)
    assert "keep a name" in said


def test_a_session_that_wrote_nothing_needs_no_cell(kernel):
    kernel.run("true")
    assert "nothing in it that a build cell would have to make" in kernel.text("%freeze")
