"""What a user can type is documented and has help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from container_kernel.kernel.commands import MAGICS

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("magic", MAGICS.values(), ids=lambda magic: magic.name)
def test_every_magic_is_in_the_readme_and_has_help(magic):
    group, _, name = magic.name.partition(" ")
    sign = "%%" if magic.is_cell else "%"
    assert re.search(rf"`{sign}{group}\b[^`]*\b{name}\b" if name else rf"`{sign}{group}\b", README)
    assert magic.summary.endswith(".")
    assert magic.example.startswith(sign + group)


def test_the_readme_documents_no_magic_that_is_not_there():
    table = [line for line in README.splitlines() if line.startswith("| `%")]
    named = {name for line in table for name in re.findall(r"`%%?(\w+)", line)}
    assert named <= {name.split()[0] for name in MAGICS}


@pytest.mark.parametrize("flag", sorted({f.name for m in MAGICS.values() for f in m.flags}))
def test_every_flag_has_help(flag):
    assert all(f.help for m in MAGICS.values() for f in m.flags if f.name == flag)
