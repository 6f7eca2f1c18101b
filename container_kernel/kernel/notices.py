"""Notices: what a session's user is told when the image changed under it, in one line each."""

from __future__ import annotations

OTHER_KERNEL = "the image has another kernel now"


def kept(reason: str = "") -> str:
    """The session goes on; with a ``reason``, on the image that it had."""
    if reason:
        return f"The session keeps its variables, on the image it has: {reason}.\n"
    return "The image changed under the session, which keeps its variables.\n"


def replaced(reason: str = "", *, is_of_image: bool = True) -> str:
    """The session is a new one, for ``reason``."""
    if not is_of_image:
        return f"This cell runs in a new session, without earlier variables: {reason}.\n"
    why = f", and {reason}" if reason else ""
    return f"The image changed{why}: this cell runs in a new session, without earlier variables.\n"


def ended(how: str) -> str:
    """Why a session is a new one: the one before has ended when no cell ran in it."""
    return f"the one before {how}"


def in_use(stage: str) -> str:
    """A build cell belongs to another stage than the one before."""
    return f"Run cells go to {stage} now, as this cell is one of its own.\n"


def back(stage: str) -> str:
    """A build cell ended what %undo or %checkout began."""
    return f"The session is back on what the cells of {stage} build.\n"
