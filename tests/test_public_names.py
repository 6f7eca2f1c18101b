"""What the package promises by name."""

from __future__ import annotations

import inspect
import re

import pytest

import container_kernel
from container_kernel import errors

ERRORS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and value.__module__ == errors.__name__
]


def drawn_parents() -> dict[str, str | None]:
    """The tree in the docstring of ``errors``, as child -> parent."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"((?:[│├└ ][─ ]{2} )+)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1]
        elif re.fullmatch(r"[A-Z]\w+", line):
            path, parents[line] = [line], None
    return parents


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_in_the_drawn_tree_under_its_parent(error):
    drawn = drawn_parents()
    assert error.__name__ in drawn
    parent = error.__base__.__name__ if error is not errors.ContainerKernelError else None
    assert drawn[error.__name__] == parent


def test_every_drawn_error_exists():
    assert set(drawn_parents()) == {error.__name__ for error in ERRORS}


def test_exported_names_are_sorted_and_exist():
    names = getattr(container_kernel, "__all__", [])
    assert list(names) == sorted(names)
    assert [name for name in names if not hasattr(container_kernel, name)] == []
