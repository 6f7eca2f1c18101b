"""Warnings: what weakens a container's isolation, told where its output is seen and kept."""

from __future__ import annotations

from collections.abc import Sequence

from . import markup
from .markup import Bundle

_MEANINGS = {
    "as-root": "it is root of the image, with root's usual rights",
    "add-cap": "it has the capability {}, which containers have not",
    "no-seccomp": "no system call is refused to it",
}


def text(words: Sequence[str]) -> str:
    """One line for people; ``words`` are the settings in force."""
    meanings = "; ".join(f"{_meaning(word)} ({word})" for word in words)
    return f"Warning: this container is less isolated than usual: {meanings}."


def relaxed(words: Sequence[str]) -> Bundle:
    """The same as a display."""
    line = text(words)
    style = f"border-left:.25em solid {markup.WARN};padding:.25em .75em"
    shown = f'<div style="font-size:{markup.SIZE};{style}">{markup.text(line)}</div>'
    return {"text/plain": line, "text/html": shown}


def metadata(words: Sequence[str]) -> Bundle:
    """What a notebook's file keeps beside that output, for programs."""
    return {"container_kernel": {"relaxed": list(words)}}


def _meaning(word: str) -> str:
    setting, _, value = word.partition(" ")
    return _MEANINGS[setting].format(value)
