"""What a user can type is documented and has help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_kernel import config
from container_kernel.cli.arguments import parser
from container_kernel.kernel.commands import MAGICS
from container_kernel.record import fields

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


def commands(within: argparse.ArgumentParser) -> Iterator[tuple[str, str | None]]:
    """Every command below, by its whole name, with its help."""
    for action in within._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            for name, sub in action.choices.items():
                yield sub.prog, helps.get(name)
                yield from commands(sub)


@pytest.mark.parametrize(("name", "help"), commands(parser()), ids=lambda value: value)
def test_every_command_is_in_the_readme_and_has_help(name, help):
    first, *rest = name.removeprefix("container-kernel ").split()
    described = rf"`container-kernel {first}\b[^`]*" + "".join(rf"\b{word}\b[^`]*" for word in rest)
    assert re.search(described, README)
    assert help


@pytest.mark.parametrize("name", fields(config.Config))
def test_every_setting_is_in_the_readme(name):
    if name not in {"environ", "user_home", "ceilings"}:  # where settings come from, not settings
        assert f"`{name}`" in README
