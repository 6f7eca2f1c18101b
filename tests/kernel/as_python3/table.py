"""The table: behaviours by name, in the order they are done."""

from __future__ import annotations

from collections.abc import Callable

SHARED: dict[str, Callable] = {}
"""Done one after the other in one session; each is given its client."""
OWN: dict[str, Callable] = {}
"""Done with kernels of their own; each is given a folder."""


def shared(function):
    """A behaviour of a session that goes on."""
    return _add(SHARED, function)


def own(function):
    """A behaviour that starts or ends kernels."""
    return _add(OWN, function)


def names():
    """Of all behaviours."""
    from . import cells, life, notebooks, requests, sessions  # noqa: F401 - they fill the table

    return [*SHARED, *OWN]


def _add(table, function):
    assert function.__name__ not in SHARED | OWN
    table[function.__name__] = function
    return function
